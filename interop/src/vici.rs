//! strongSwan's VICI, as much of it as the table needs: commands, and the events that answer `list-sas`.
//!
//! Packets are a 32-bit length and a type; messages are trees of named values. Source: strongSwan,
//! `src/libcharon/plugins/vici/README.md`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

const CMD_REQUEST: u8 = 0;
const CMD_RESPONSE: u8 = 1;
const EVENT_REGISTER: u8 = 3;
const EVENT_CONFIRM: u8 = 5;
const EVENT: u8 = 7;

const SECTION_START: u8 = 1;
const SECTION_END: u8 = 2;
const KEY_VALUE: u8 = 3;
const LIST_START: u8 = 4;
const LIST_ITEM: u8 = 5;
const LIST_END: u8 = 6;

/// The longest packet that the protocol allows.
const LONGEST: u32 = 512 * 1024;

/// Sends a command with its arguments and gives the answer.
pub fn ask(socket: &Path, command: &str, args: &[(&str, &str)]) -> io::Result<Value> {
    let mut stream = open(socket)?;
    request(&mut stream, command, args)?;
    loop {
        let (kind, body) = receive(&mut stream)?;
        if kind == CMD_RESPONSE {
            return decode(&body);
        }
    }
}

/// All IKE SAs, each a map of one name and what it is.
pub fn list_sas(socket: &Path) -> io::Result<Vec<Value>> {
    let mut stream = open(socket)?;
    send(&mut stream, &named(EVENT_REGISTER, "list-sa"))?;
    if receive(&mut stream)?.0 != EVENT_CONFIRM {
        return Err(bad("no event list-sa"));
    }
    request(&mut stream, "list-sas", &[])?;
    let mut all = Vec::new();
    loop {
        match receive(&mut stream)? {
            (EVENT, body) => {
                let name = usize::from(*body.first().ok_or_else(|| bad("empty event"))?);
                all.push(decode(body.get(name + 1..).unwrap_or_default())?);
            }
            (CMD_RESPONSE, _) => return Ok(all),
            _ => return Err(bad("unexpected packet")),
        }
    }
}

fn open(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

fn named(kind: u8, name: &str) -> Vec<u8> {
    let mut out = vec![kind, u8::try_from(name.len()).unwrap_or(u8::MAX)];
    out.extend(name.as_bytes());
    out
}

fn request(stream: &mut UnixStream, command: &str, args: &[(&str, &str)]) -> io::Result<()> {
    let mut out = named(CMD_REQUEST, command);
    for (key, value) in args {
        out.extend(named(KEY_VALUE, key));
        out.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(value.as_bytes());
    }
    send(stream, &out)
}

fn send(stream: &mut UnixStream, packet: &[u8]) -> io::Result<()> {
    let length = u32::try_from(packet.len()).map_err(|_| bad("too long"))?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(packet)
}

fn receive(stream: &mut UnixStream) -> io::Result<(u8, Vec<u8>)> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length == 0 || length > LONGEST {
        return Err(bad("a packet of a forbidden length"));
    }
    let mut packet = vec![0; length as usize];
    stream.read_exact(&mut packet)?;
    let kind = packet.remove(0);
    Ok((kind, packet))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count).ok_or_else(|| bad("cut short"))?;
        self.0 = rest;
        Ok(head)
    }

    fn byte(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn name(&mut self) -> io::Result<String> {
        let length = usize::from(self.byte()?);
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn value(&mut self) -> io::Result<Value> {
        let length = self.take(2)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        Ok(Value::String(String::from_utf8_lossy(self.take(length)?).into_owned()))
    }
}

fn decode(bytes: &[u8]) -> io::Result<Value> {
    let mut reader = Reader(bytes);
    // Sections that are open, with their names; the first is the message.
    let mut open = vec![(String::new(), Map::new())];
    while !reader.0.is_empty() {
        match reader.byte()? {
            SECTION_START => open.push((reader.name()?, Map::new())),
            SECTION_END => {
                let (name, section) = open.pop().ok_or_else(|| bad("too many ends"))?;
                insert(&mut open, name, Value::Object(section))?;
            }
            KEY_VALUE => {
                let name = reader.name()?;
                let value = reader.value()?;
                insert(&mut open, name, value)?;
            }
            LIST_START => {
                let name = reader.name()?;
                let mut items = Vec::new();
                loop {
                    match reader.byte()? {
                        LIST_ITEM => items.push(reader.value()?),
                        LIST_END => break,
                        _ => return Err(bad("a stranger in a list")),
                    }
                }
                insert(&mut open, name, Value::Array(items))?;
            }
            _ => return Err(bad("an unknown element")),
        }
    }
    match open.pop() {
        Some((_, message)) if open.is_empty() => Ok(Value::Object(message)),
        _ => Err(bad("a section without end")),
    }
}

fn insert(open: &mut [(String, Map<String, Value>)], name: String, value: Value) -> io::Result<()> {
    let (_, section) = open.last_mut().ok_or_else(|| bad("too many ends"))?;
    section.insert(name, value);
    Ok(())
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("VICI: {what}"))
}
