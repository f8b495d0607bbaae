//! Processes that have nginx's name and are not believed to be nginx.

/// A process that has nginx's name and is not believed to be nginx: its connections are not watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Its pid.
    pub pid: u32,
    /// Its real user, if it was still there to be asked.
    pub uid: Option<u32>,
    /// Its executable, if that could be seen: a name that its user chose.
    pub exe: Option<String>,
    /// Why it is not believed.
    pub why: Why,
}

/// Why a process that has the name is not believed to be nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It went before anything was found out, or its executable cannot be seen.
    Unseen,
    /// It lives in a user namespace, where names and files are whatever its maker says.
    UserNamespace,
    /// Its executable is not root's.
    ForeignExecutable,
    /// Others than root may write its executable.
    WritableExecutable,
    /// Its executable lies on a file system that a user's own program answers for.
    UsersFileSystem,
    /// Its executable has another name.
    OtherExecutable,
    /// A user who logged in has started it: it is no service.
    Login,
}

impl Why {
    /// Each with its name in JSON and in evidence.
    pub const ALL: [(&'static str, Self); 7] = [
        ("unseen", Self::Unseen),
        ("user_namespace", Self::UserNamespace),
        ("foreign_executable", Self::ForeignExecutable),
        ("writable_executable", Self::WritableExecutable),
        ("users_file_system", Self::UsersFileSystem),
        ("other_executable", Self::OtherExecutable),
        ("login", Self::Login),
    ];

    /// Its name in JSON and in evidence.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, why)| *why == self).map_or("unseen", |(name, _)| name)
    }

    /// As a sentence about the process goes on.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Unseen => "but its executable cannot be looked at",
            Self::UserNamespace => "but lives in a user namespace of its own",
            Self::ForeignExecutable => "but its executable is not root's",
            Self::WritableExecutable => "but others than root may write its executable",
            Self::UsersFileSystem => "but its executable lies on a user's own file system (FUSE)",
            Self::OtherExecutable => "but its executable has another name",
            Self::Login => "but was started by a user who had logged in, and is no service",
        }
    }
}
