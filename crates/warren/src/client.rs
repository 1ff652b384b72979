//! Talks to the daemon through its control socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::exit::Failure;

/// Longest answer that is read: a status of 10,000 peers has about 15 MB.
const MAX_ANSWER: u64 = 256 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);

/// `GET path`, the answer as JSON.
pub fn get(socket: &Path, path: &str) -> Result<Value, Failure> {
    exchange(socket, "GET", path, None)
}

/// `POST path` with a JSON body, the answer as JSON.
pub fn post(socket: &Path, path: &str, body: &Value) -> Result<Value, Failure> {
    exchange(socket, "POST", path, Some(body))
}

/// `GET path`, each line of the answer to `line` as it comes, until it ends or `line` says no.
pub fn follow(
    socket: &Path,
    path: &str,
    mut line: impl FnMut(&str) -> bool,
) -> Result<(), Failure> {
    let mut stream = connect(socket)?;
    send(&mut stream, "GET", path, None).map_err(|error| unreachable(socket, &error))?;
    // Events come when they come.
    stream.set_read_timeout(None).map_err(|error| unreachable(socket, &error))?;
    let mut reader = BufReader::new(stream);
    let head = read_head(&mut reader).map_err(|error| unreachable(socket, &error))?;
    let mut body = Chunks { reader, left: 0, chunked: head.chunked, ended: false };
    if head.status != 200 {
        let mut text = String::new();
        let length = head.length.unwrap_or(MAX_ANSWER).min(MAX_ANSWER);
        body.take(length).read_to_string(&mut text).map_err(|error| unreachable(socket, &error))?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        return Err(Failure::No(value["error"].as_str().unwrap_or(&text).to_owned()));
    }
    let mut lines = BufReader::new(&mut body);
    let mut text = String::new();
    while lines.read_line(&mut text).map_err(|error| unreachable(socket, &error))? > 0 {
        if !line(text.trim_end()) {
            return Ok(());
        }
        text.clear();
    }
    Ok(())
}

/// Whether a daemon answers.
pub fn is_up(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

fn exchange(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, Failure> {
    let mut stream = connect(socket)?;
    let answer = (|| {
        send(&mut stream, method, path, body)?;
        let mut reader = BufReader::new(stream);
        let head = read_head(&mut reader)?;
        let mut text = Vec::new();
        match head.length {
            Some(length) => reader.take(length.min(MAX_ANSWER)).read_to_end(&mut text)?,
            None => Chunks { reader, left: 0, chunked: head.chunked, ended: false }
                .take(MAX_ANSWER)
                .read_to_end(&mut text)?,
        };
        std::io::Result::Ok((head.status, text))
    })();
    let (status, text) = answer.map_err(|error| unreachable(socket, &error))?;
    let value: Value = serde_json::from_slice(&text).map_err(|_| {
        Failure::No(format!("the daemon answered {status}: {}", String::from_utf8_lossy(&text)))
    })?;
    if status == 200 {
        return Ok(value);
    }
    Err(Failure::No(value["error"].as_str().map_or_else(|| value.to_string(), str::to_owned)))
}

fn connect(socket: &Path) -> Result<UnixStream, Failure> {
    let stream = UnixStream::connect(socket).map_err(|error| unreachable(socket, &error))?;
    let timeouts = stream
        .set_read_timeout(Some(TIMEOUT))
        .and_then(|()| stream.set_write_timeout(Some(TIMEOUT)));
    timeouts.map_err(|error| unreachable(socket, &error))?;
    Ok(stream)
}

fn unreachable(socket: &Path, error: &std::io::Error) -> Failure {
    let remedy = match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            "is `warren run` running, with the same --control?"
        }
        std::io::ErrorKind::PermissionDenied => "only root and the daemon's user may talk to it",
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
            "it did not answer in time"
        }
        _ => "the connection broke",
    };
    Failure::Unreachable(format!("no daemon on {}: {error}; {remedy}", socket.display()))
}

fn send(
    stream: &mut UnixStream,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> std::io::Result<()> {
    let body = body.map(Value::to_string).unwrap_or_default();
    // In one piece: a server that does not care for the body answers, and closes, before a second one.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: warren\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())
}

struct Head {
    status: u16,
    length: Option<u64>,
    chunked: bool,
}

fn read_head(reader: &mut impl BufRead) -> std::io::Result<Head> {
    let mut head = Head { status: 0, length: None, chunked: false };
    loop {
        let mut line = String::new();
        if reader.by_ref().take(8192).read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(rest) = line.strip_prefix("http/1.1 ") {
            head.status = rest.split(' ').next().and_then(|code| code.parse().ok()).unwrap_or(0);
        } else if let Some(length) = line.strip_prefix("content-length:") {
            head.length = length.trim().parse().ok();
        } else if line == "transfer-encoding: chunked" {
            head.chunked = true;
        } else if line.is_empty() {
            return Ok(head);
        }
    }
}

/// A body in chunks (RFC 9112 7.1), or up to the end of the connection.
struct Chunks<R> {
    reader: R,
    left: u64,
    chunked: bool,
    ended: bool,
}

impl<R: BufRead> Read for Chunks<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if !self.chunked {
            return self.reader.read(out);
        }
        if self.left == 0 && !self.ended {
            self.left = self.next_chunk()?;
            self.ended = self.left == 0;
        }
        let room = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = self.reader.read(&mut out[..room])?;
        self.left -= got as u64;
        if self.left == 0 && got > 0 {
            self.reader.read_line(&mut String::new())?;
        }
        Ok(got)
    }
}

impl<R: BufRead> Chunks<R> {
    fn next_chunk(&mut self) -> std::io::Result<u64> {
        let mut line = String::new();
        self.reader.by_ref().take(64).read_line(&mut line)?;
        let size = line.trim_end().split(';').next().unwrap_or_default();
        u64::from_str_radix(size, 16).map_err(|_| std::io::ErrorKind::InvalidData.into())
    }
}
