//! Both ends of an exchange.

pub mod nginx_end;
pub mod served;
pub mod worker_end;
