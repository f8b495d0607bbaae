//! Both ends of an exchange.

pub mod abandoned;
pub mod ending;
pub mod nginx_end;
pub mod served;
pub mod taken;
pub mod worker_end;
