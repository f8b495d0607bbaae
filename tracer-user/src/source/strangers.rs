//! Those who have nginx's name and are not believed to be nginx.

use super::Source;
use crate::model::{budget, stranger::Stranger};

impl Source {
    /// Looks at those who have nginx's name and are not believed to be nginx, if any have shown since and it is time; returns those to
    /// be reported.
    pub(super) fn look_at_strangers(&mut self) -> Vec<Stranger> {
        let Some(trust) = self.trust.as_mut().filter(|trust| self.has_strangers && trust.may_look()) else {
            return Vec::new();
        };
        self.has_strangers = false;
        let strangers = trust.look().unwrap_or_else(|error| {
            crate::notice!("who is called nginx cannot be looked up: {error}");
            Vec::new()
        });
        for Stranger { pid, uid, exe, why } in &strangers {
            // As Rust would write it, for a user chose it.
            let exe = exe.as_ref().map_or_else(String::new, |exe| format!(" ({exe:?})"));
            let user = uid.map_or_else(String::new, |uid| format!(" of user {uid}"));
            crate::notice!(
                "left out: process {pid}{user} is called nginx{exe}, {}; -p {pid} traces it all the same",
                why.meaning()
            );
        }
        if !strangers.is_empty() && trust.is_full() {
            crate::notice!(
                "more processes than {} are called nginx and are left out: from now on only their connections are counted",
                budget::STRANGERS
            );
        }
        strangers
    }
}
