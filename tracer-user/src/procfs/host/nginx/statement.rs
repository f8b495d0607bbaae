//! The statements of a configuration: words, then `;`, or `{` and more statements. Pure.
//!
//! As `ngx_conf_read_token` takes them (src/core/ngx_conf_file.c): a quote and a `#` mean something only where a word begins, and a brace
//! after `$` belongs to a variable's name.

use thiserror::Error;

use super::lua;

/// Why a text is no configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Fault {
    #[error("an unexpected `{0}`")]
    Unexpected(char),
    #[error("the file ends within a directive or a block")]
    End,
    #[error("a word follows a closing quote")]
    AfterQuote,
    #[error("blocks are nested too deeply")]
    TooDeep,
}

/// How a statement ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By a semicolon.
    Semicolon,
    /// It opens a block.
    Block,
    /// It opens a block of another language, which was passed over.
    Foreign,
    /// There is none: the block around it ends.
    Close,
    /// There is none: the text ends.
    Text,
}

/// A text, read up to a position.
#[derive(Debug)]
pub(super) struct Statements<'a> {
    rest: &'a [u8],
    line: u32,
}

impl<'a> Statements<'a> {
    /// From the beginning.
    pub fn of(text: &'a str) -> Self {
        Self { rest: text.as_bytes(), line: 1 }
    }

    /// Where it has come to.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The next statement: the line that it begins at, its words, and how it ends.
    pub fn next(&mut self) -> Result<(u32, Vec<String>, End), Fault> {
        let mut words = Vec::new();
        self.skip();
        let begin = self.line;
        loop {
            self.skip();
            let end = match self.rest.first() {
                None if words.is_empty() => return Ok((begin, words, End::Text)),
                None => return Err(Fault::End),
                Some(b'}') if words.is_empty() => End::Close,
                Some(letter @ (b';' | b'{')) if words.is_empty() => {
                    return Err(Fault::Unexpected((*letter).into()));
                }
                Some(b';') => End::Semicolon,
                Some(b'{') => End::Block,
                Some(b'}') => return Err(Fault::Unexpected('}')),
                Some(_) => {
                    words.push(self.word()?);
                    continue;
                }
            };
            self.take();
            if end == End::Block && words.first().is_some_and(|name| name.ends_with("_by_lua_block")) {
                let length = lua::block(self.rest).ok_or(Fault::End)?;
                for _ in 0..length {
                    self.take();
                }
                return Ok((begin, words, End::Foreign));
            }
            return Ok((begin, words, end));
        }
    }

    fn take(&mut self) -> Option<u8> {
        let (letter, rest) = self.rest.split_first()?;
        self.rest = rest;
        self.line += u32::from(*letter == b'\n');
        Some(*letter)
    }

    /// Passes over blanks and comments.
    fn skip(&mut self) {
        while let Some(letter) = self.rest.first() {
            match letter {
                b'#' => while self.take().is_some_and(|letter| letter != b'\n') {},
                letter if is_blank(*letter) => {
                    self.take();
                }
                _ => return,
            }
        }
    }

    fn word(&mut self) -> Result<String, Fault> {
        let quote = self.rest.first().copied().filter(|letter| matches!(letter, b'"' | b'\''));
        if quote.is_some() {
            self.take();
        }
        let (mut word, mut is_variable) = (Vec::new(), false);
        loop {
            let Some(letter) = self.rest.first().copied() else {
                if quote.is_some() {
                    return Err(Fault::End);
                }
                break;
            };
            if Some(letter) == quote {
                self.take();
                // As in `if ("a" = "b")`.
                let follows = self.rest.first();
                let may_follow = |letter: &u8| is_blank(*letter) || matches!(letter, b';' | b'{' | b')');
                if !follows.is_none_or(may_follow) {
                    return Err(Fault::AfterQuote);
                }
                break;
            }
            let is_end = is_blank(letter) || letter == b';' || letter == b'{' && !is_variable;
            if quote.is_none() && is_end {
                break;
            }
            self.take();
            match letter {
                b'\\' => match self.take() {
                    Some(escaped @ (b'"' | b'\'' | b'\\')) => word.push(escaped),
                    Some(b't') => word.push(b'\t'),
                    Some(b'r') => word.push(b'\r'),
                    Some(b'n') => word.push(b'\n'),
                    Some(other) => word.extend([b'\\', other]),
                    None => return Err(Fault::End),
                },
                letter => word.push(letter),
            }
            is_variable = letter == b'$' || letter == b'{' && is_variable;
        }
        Ok(String::from_utf8_lossy(&word).into_owned())
    }
}

fn is_blank(letter: u8) -> bool {
    matches!(letter, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<(u32, String, End)>, Fault> {
        let mut statements = Statements::of(text);
        let mut all = Vec::new();
        loop {
            let (line, words, end) = statements.next()?;
            if end == End::Text {
                return Ok(all);
            }
            all.push((line, words.join("|"), end));
        }
    }

    #[test]
    fn words_are_taken_as_nginx_takes_them() {
        let cases = [
            ("a b;", "a|b"),
            ("a \"b c\" 'd;e' ;", "a|b c|d;e"),
            ("a b#c d\"e;", "a|b#c|d\"e"),
            ("a \\\"b \\; 'it\\'s' \\d\\.;", "a|\"b|\\;|it's|\\d\\."),
            ("set $a ${b}c;", "set|$a|${b}c"),
            ("rewrite ^/(.*)$ /$1 break;", "rewrite|^/(.*)$|/$1|break"),
            ("a b}c;", "a|b}c"),
            ("log x '{ \"a\": \"$b\" }';", "log|x|{ \"a\": \"$b\" }"),
        ];
        for (text, expected) in cases {
            assert_eq!(all(text).unwrap(), [(1, expected.to_owned(), End::Semicolon)], "{text}");
        }
        let blocks = all("if ($a = \"b\"){\n\n return 1; # }\n}").unwrap();
        let words: Vec<&str> = blocks.iter().map(|(_, words, _)| words.as_str()).collect();
        assert_eq!(words, ["if|($a|=|b|)", "return|1", ""]);
        assert_eq!(blocks[1].0, 3);
    }

    #[test]
    fn what_nginx_refuses_is_refused() {
        assert_eq!(all("nonsense"), Err(Fault::End));
        assert_eq!(all("a 'b"), Err(Fault::End));
        assert_eq!(all("a 'b'c;"), Err(Fault::AfterQuote));
        assert_eq!(all(";"), Err(Fault::Unexpected(';')));
        assert_eq!(all("{"), Err(Fault::Unexpected('{')));
        assert_eq!(all("a }"), Err(Fault::Unexpected('}')));
    }

    #[test]
    fn lua_is_passed_over() {
        let text = "content_by_lua_block {\n local a = '}' -- }\n if x then y = { z } end }\nlisten 80;";
        let all = all(text).unwrap();
        assert_eq!(all[0].2, End::Foreign);
        assert_eq!(all[1], (4, "listen|80".to_owned(), End::Semicolon));
        assert_eq!(Statements::of("a_by_lua_block { '").next(), Err(Fault::End));
    }
}
