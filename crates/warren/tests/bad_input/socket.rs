//! Nonsense on the control socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::PSK;
use crate::world::daemon::Daemon;
use crate::world::net::Net;
use crate::world::root;

#[test]
fn nonsense_on_the_control_socket_hurts_nobody() {
    if !root() {
        return;
    }
    let net = Net::new(&["10.77.0.1"], 24);
    let mut daemon = Daemon::new(&net.hosts[0], net.addresses[0]);
    daemon.start(&format!("ipsec_subnets: [10.77.0.0/24]\n{PSK}"));
    let ask = |text: &[u8]| {
        let mut stream = UnixStream::connect(daemon.control()).unwrap();
        let _ = stream.write_all(text);
        // Half a request is not waited for.
        if !text.ends_with(b"\r\n\r\n") && !text.starts_with(b"POST") {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let post = |path: &str, body: &str| {
        let length = body.len();
        ask(format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())
    };
    let huge = "x".repeat(3 << 20);
    for body in ["", "{", "[]", "{\"action\":\"up\"}", "{\"action\":\"fly\",\"peer\":\"x\"}"] {
        let answer = post("/v1/command", body);
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // Refused before it is read to the end: the answer may be lost.
    post("/v1/command", &huge);
    assert!(post("/v1/plan", "{\"file\":\"/dev/zero\"}").contains("larger than"));
    assert!(
        ask(b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").contains(" 404 ")
    );
    let explain =
        "GET /v1/explain?src=x&dst=y&protocol=999 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(ask(explain.as_bytes()).contains(" 400 "));
    ask(b"");
    ask(b"\0\xff\x16\x03\x01");
    ask("GET /".repeat(100_000).as_bytes());
    ask(format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10_000)).as_bytes());
    // Many who connect and say nothing.
    let idle: Vec<_> = (0..200).map(|_| UnixStream::connect(daemon.control()).unwrap()).collect();
    daemon.warren(&["status"]).ok();
    drop(idle);
    daemon.warren(&["stop"]).ok();
    assert!(daemon.ended().success());
}
