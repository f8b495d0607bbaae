//! FastCGI, spoken wrongly.

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Result, ensure};
use rig::Fault;

const VERSION: u8 = 1;
const END_REQUEST: u8 = 3;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;
const UNKNOWN: u8 = 99;

/// What to send in answer to a request, if the fault is one of FastCGI.
pub fn answer(fault: Fault) -> Option<Vec<u8>> {
    let stdout = |text: &str| record(STDOUT, text.as_bytes());
    let end = || record(END_REQUEST, &[0; 8]);
    let whole = || [stdout("Content-Type: text/plain\r\n\r\nok\n"), stdout(""), end()].concat();
    let short = || stdout(&format!("Content-Length: 100000\r\n\r\n{}", "x".repeat(4_000)));
    Some(match fault {
        Fault::FastcgiAnswer => whole(),
        Fault::FastcgiStderr => [record(STDERR, b"PHP message: all is well"), whole()].concat(),
        Fault::FastcgiCutRecord => {
            let mut cut = short();
            cut.truncate(2_000);
            cut
        }
        Fault::FastcgiNoEnd => stdout("Content-Type: text/plain\r\n\r\nok\n"),
        Fault::FastcgiCutStdout => [short(), stdout(""), end()].concat(),
        Fault::FastcgiCutRequest => [short(), end()].concat(),
        Fault::FastcgiEndAtOnce => end(),
        Fault::FastcgiUnknownRecord => record(UNKNOWN, b"what"),
        Fault::FastcgiBigHeader => {
            [stdout(&format!("X: {}\r\n\r\nok\n", "x".repeat(20_000))), stdout(""), end()].concat()
        }
        Fault::FastcgiBadHeader => [stdout("X-\u{1}: x\r\n\r\nok\n"), stdout(""), end()].concat(),
        _ => return None,
    })
}

/// Reads one request to its end, sends the answer and closes properly.
pub fn misbehave(mut connection: File, answer: &[u8]) -> Result<()> {
    loop {
        let mut header = [0; 8];
        connection.read_exact(&mut header)?;
        let [version, kind, _, _, high, low, padding, _] = header;
        ensure!(version == VERSION, "FastCGI of version {version}");
        let length = u16::from_be_bytes([high, low]);
        connection.read_exact(&mut vec![0; usize::from(length) + usize::from(padding)])?;
        if kind == STDIN && length == 0 {
            break;
        }
    }
    println!("read");
    connection.write_all(answer)?;
    crate::close_properly(&mut connection);
    Ok(())
}

/// A record of request 1, which is the only one that nginx makes on a connection.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let [.., high, low] = content.len().to_be_bytes();
    [&[VERSION, kind, 0, 1, high, low, 0, 0], content].concat()
}
