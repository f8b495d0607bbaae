//! HTTP/2 without TLS, spoken wrongly.

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Result, ensure};
use rig::Fault;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const INTERNAL_ERROR: u32 = 2;
const ENHANCE_YOUR_CALM: u32 = 11;

/// `:status: 200`, the eighth entry of HPACK's static table.
const STATUS_200: &[u8] = &[0x88];
/// `content-length: 100`, a literal that is not to be indexed, named by the 28th entry.
const LENGTH_100: &[u8] = b"\x0f\x0d\x03100";
/// The hundredth entry, which nobody has made.
const NO_ENTRY: &[u8] = &[0x80 | 100];

/// The frames to send on stream 1, the only one of a connection, if the fault is one of HTTP/2.
pub fn answer(fault: Fault) -> Option<Vec<u8>> {
    let on = |kind, flags, content: &[u8]| frame(kind, flags, 1, content);
    let settings = frame(SETTINGS, 0, 0, &[]);
    let begun = || [on(HEADERS, END_HEADERS, STATUS_200), on(DATA, 0, b"only this much")].concat();
    let frames = match fault {
        Fault::Http2Answer => [on(HEADERS, END_HEADERS, STATUS_200), on(DATA, END_STREAM, b"ok\n")].concat(),
        Fault::Http2Reset => on(RST_STREAM, 0, &INTERNAL_ERROR.to_be_bytes()),
        Fault::Http2ResetMidway => [begun(), on(RST_STREAM, 0, &INTERNAL_ERROR.to_be_bytes())].concat(),
        Fault::Http2Goaway => {
            let last_stream = 0_u32.to_be_bytes();
            frame(GOAWAY, 0, 0, &[last_stream, ENHANCE_YOUR_CALM.to_be_bytes()].concat())
        }
        Fault::Http2CutStream => {
            let header = [STATUS_200, LENGTH_100].concat();
            [on(HEADERS, END_HEADERS, &header), on(DATA, END_STREAM, b"only this much")].concat()
        }
        Fault::Http2CutConnection => begun(),
        Fault::Http2BadLength => on(RST_STREAM, 0, &[0; 5]),
        Fault::Http2BadIndex => on(HEADERS, END_HEADERS | END_STREAM, NO_ENTRY),
        Fault::Http2Push => on(PUSH_PROMISE, END_HEADERS, &[&2_u32.to_be_bytes(), STATUS_200].concat()),
        Fault::Http2BigFrame => on(DATA, 0, &[0; 20_000]),
        _ => return None,
    };
    Some([settings, frames].concat())
}

/// Reads one request to its end and sends the answer; closes properly, or else once nginx does.
pub fn misbehave(mut connection: File, answer: &[u8], closes: bool) -> Result<()> {
    let mut preface = [0; PREFACE.len()];
    connection.read_exact(&mut preface)?;
    ensure!(preface == PREFACE, "not HTTP/2's preface but {preface:?}");
    loop {
        let mut header = [0; 9];
        connection.read_exact(&mut header)?;
        let [high, middle, low, kind, flags, ..] = header;
        connection.read_exact(&mut vec![0; u32::from_be_bytes([0, high, middle, low]) as usize])?;
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            break;
        }
    }
    println!("read");
    connection.write_all(answer)?;
    if closes {
        crate::close_properly(&mut connection);
    } else {
        crate::drain(&mut connection);
    }
    Ok(())
}

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let [.., high, middle, low] = content.len().to_be_bytes();
    [&[high, middle, low, kind, flags], &stream.to_be_bytes()[..], content].concat()
}
