//! Names, texts and paths, whatever their bytes are.

use wire::{COMM_LEN, PATH_LEN};

use super::codec::{Bad, Base, Codec, Context, bad};

/// A name of the kernel's, closed by a zero.
pub(super) struct Name;

impl Codec<[u8; COMM_LEN]> for Name {
    type Json = String;

    fn encode(bytes: &[u8; COMM_LEN], _: Context<'_>) -> String {
        text(bytes)
    }

    fn decode(json: String, _: Base) -> Result<[u8; COMM_LEN], Bad> {
        bytes(&json)
    }
}

/// A text that a zero closes; null for an empty one.
pub(super) struct Text;

impl<const LEN: usize> Codec<[u8; LEN]> for Text {
    type Json = Option<String>;

    fn encode(bytes: &[u8; LEN], _: Context<'_>) -> Option<String> {
        (bytes[0] != 0).then(|| text(bytes))
    }

    fn decode(json: Option<String>, _: Base) -> Result<[u8; LEN], Bad> {
        json.map_or(Ok([0; LEN]), |text| bytes(&text))
    }
}

/// A unix socket's path, closed by a zero.
pub(super) struct SocketPath;

impl Codec<[u8; PATH_LEN]> for SocketPath {
    type Json = Option<String>;

    fn encode(bytes: &[u8; PATH_LEN], Context { names, .. }: Context<'_>) -> Option<String> {
        (bytes[0] != 0).then(|| names.path(&text(bytes)).into_owned())
    }

    fn decode(json: Option<String>, _: Base) -> Result<[u8; PATH_LEN], Bad> {
        json.map_or(Ok([0; PATH_LEN]), |path| bytes(&path))
    }
}

/// Bytes up to the first zero as text: those that are no UTF-8 as `\xNN`, and a backslash twice.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let mut text = String::new();
    for chunk in bytes[..end].utf8_chunks() {
        text += &chunk.valid().replace('\\', "\\\\");
        for byte in chunk.invalid() {
            text += &format!("\\x{byte:02x}");
        }
    }
    text
}

/// The bytes of such a text.
pub(super) fn unescaped(text: &str) -> Result<Vec<u8>, Bad> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        found.extend(before.as_bytes());
        rest = if let Some(after) = after.strip_prefix('\\') {
            found.push(b'\\');
            after
        } else {
            let digits = after.strip_prefix('x').and_then(|after| after.get(..2));
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            found.push(byte.ok_or_else(|| bad("a name has a backslash that means nothing"))?);
            after.get(3..).unwrap_or_default()
        };
    }
    found.extend(rest.as_bytes());
    Ok(found)
}

fn bytes<const LEN: usize>(text: &str) -> Result<[u8; LEN], Bad> {
    let found = unescaped(text)?;
    let mut bytes = [0; LEN];
    let room = bytes.get_mut(..found.len()).ok_or_else(|| bad("a name is longer than any can be"))?;
    room.copy_from_slice(&found);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were() {
        for name in [&b"nginx"[..], b"a\\b", b"\xff\xfe", "é".as_bytes(), b"cut \xc3", b""] {
            let mut array = [0; COMM_LEN];
            array[..name.len()].copy_from_slice(name);
            assert_eq!(bytes::<COMM_LEN>(&text(&array)).unwrap(), array);
        }
        assert_eq!(text(b"a\\b\xff\0rest"), "a\\\\b\\xff");
        for bad in ["\\", "\\x", "\\x0", "\\q", "\\xzz", "\\x\u{e9}", "0123456789abcdef0"] {
            assert!(bytes::<COMM_LEN>(bad).is_err(), "{bad}");
        }
    }
}
