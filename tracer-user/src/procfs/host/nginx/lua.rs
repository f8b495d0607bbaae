//! Lua in a configuration (`content_by_lua_block { ... }`), as far as it takes to know where it ends. Pure.

/// How long a block is whose opening brace was taken, its closing brace included; none if it has none.
pub(super) fn block(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 1_usize);
    while depth > 0 {
        let rest = text.get(at..)?;
        at += match rest {
            [b'{', ..] => {
                depth += 1;
                1
            }
            [b'}', ..] => {
                depth -= 1;
                1
            }
            [b'-', b'-', comment @ ..] => 2 + bracket(comment).unwrap_or_else(|| Some(line(comment)))?,
            [b'[', ..] => bracket(rest).unwrap_or(Some(1))?,
            [quote @ (b'"' | b'\''), string @ ..] => 1 + quoted(string, *quote)?,
            [_, ..] => 1,
            [] => return None,
        };
    }
    Some(at)
}

/// How long a string is up to its closing quote.
fn quoted(string: &[u8], quote: u8) -> Option<usize> {
    let mut at = 0;
    loop {
        match string.get(at)? {
            b'\\' => at += 2,
            letter if *letter == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

fn line(comment: &[u8]) -> usize {
    comment.iter().position(|letter| *letter == b'\n').unwrap_or(comment.len())
}

/// How long `[[...]]` or `[==[...]==]` is: nothing if it does not begin so, none within if it has no end.
fn bracket(text: &[u8]) -> Option<Option<usize>> {
    let rest = text.strip_prefix(b"[")?;
    let level = rest.iter().take_while(|letter| **letter == b'=').count();
    rest[level..].strip_prefix(b"[")?;
    let close = [&b"]"[..], &vec![b'='; level], b"]"].concat();
    let found = text.windows(close.len()).position(|bytes| bytes == close);
    Some(found.map(|at| at + close.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_braces_of_the_language_count() {
        for text in [
            "}",
            " return { a = {} } }",
            "'}' \"\\\"}\" }",
            "-- }\n}",
            "--[[ } ]] }",
            "--[==[ ]] } ]==] }",
            "x = [[}]] }",
            "x = [=[ ]] } ]=] }",
            "a[b[1]] }",
            "a - -b }",
        ] {
            assert_eq!(block(format!("{text} more }}").as_bytes()), Some(text.len()), "{text}");
        }
        for text in ["", "{ }", "'}", "[[ }", "--[[ }", "-- }", "'\\"] {
            assert_eq!(block(text.as_bytes()), None, "{text}");
        }
    }
}
