//! What nginx's messages are about, by how they begin: eight characters are compared at once, on both sides.

/// How a message, or what nginx is doing, begins: its first sixteen characters, eight at a time; zeroes where it is shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning(pub u64, pub u64);

/// Eight characters that can be compared at once.
pub const fn characters(text: &[u8; 8]) -> u64 {
    u64::from_ne_bytes(*text)
}

impl Beginning {
    /// How this message begins.
    pub fn of(message: &[u8]) -> Self {
        let mut first = [0; 16];
        for (to, from) in first.iter_mut().zip(message) {
            *to = *from;
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = first;
        Self(characters(&[a, b, c, d, e, f, g, h]), characters(&[i, j, k, l, m, n, o, p]))
    }

    /// Whether this is said of no connection: none was made, connect itself refused it, or it goes on.
    #[inline(always)]
    pub const fn is_of_no_connection(self) -> bool {
        let Self(first, second) = self;
        first == characters(b"no live ")
            || first == characters(b"%V could")
            || first == characters(b"no resol")
            || first == characters(b"no port ")
            || first == characters(b"invalid ")
            || first == characters(b"%ui work")
            || first == characters(b"socket()")
            || first == characters(b"setsocko")
            || first == characters(b"ioctl(FI")
            || first == characters(b"fcntl(O_")
            || first == characters(b"bind(%V)")
            || first == characters(b"epoll_ct")
            || self.is_note()
            || first == characters(b"connect(") && second == characters(b") to %V ")
    }

    /// Whether it is no failure but what a FastCGI application wrote, which nginx has just read.
    #[inline(always)]
    pub const fn is_note(self) -> bool {
        let Self(first, second) = self;
        first == characters(b"FastCGI ") && second == characters(b"sent in ")
    }

    /// Whether nginx goes on with the connection: what is no HTTP it passes on as HTTP/0.9.
    #[inline(always)]
    pub const fn is_passed_on(self) -> bool {
        let Self(first, second) = self;
        first == characters(b"upstream") && second == characters(b" sent no")
    }

    /// Whether this is said of an upstream whatever nginx is doing.
    #[inline(always)]
    pub const fn is_of_upstream(self) -> bool {
        let Self(first, _) = self;
        first == characters(b"upstream")
            || first == characters(b"%V could")
            || first == characters(b"no resol")
            || first == characters(b"no live ")
            || self.is_of_module()
    }

    /// Whether a module says this of a connection that it made for itself: Lua's cosockets (ngx_http_lua_socket_tcp.c).
    #[inline(always)]
    pub const fn is_of_module(self) -> bool {
        let Self(first, _) = self;
        first == characters(b"lua tcp ")
    }

    /// Whether this is what nginx does with an upstream (`c->log->action`, src/http/ngx_http_upstream.c).
    #[inline(always)]
    pub const fn is_with_upstream(self) -> bool {
        let Self(first, second) = self;
        first == characters(b"connecti") && second == characters(b"ng to up")
            || first == characters(b"SSL hand") && second == characters(b"shaking ")
            || first == characters(b"sending ") && second == characters(b"request ")
            || first == characters(b"reading ")
                && (second == characters(b"response") || second == characters(b"upstream"))
            || first == characters(b"proxying")
    }
}
