//! The control socket: HTTP/1.1 and JSON on a Unix socket, for the command line and for programs.
//!
//! Only the user who runs the daemon, and root, may speak to it: the socket's mode says so, and the
//! peer's credentials are checked as well.

use std::convert::Infallible;
use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ipsec::sa::SaKey;
use mesh::{Command, Event, Target};
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::UnixListener;
use tokio::sync::{broadcast, mpsc, oneshot};
use wire::esp::Spi;

/// What the control socket asks of the loop.
pub enum Call {
    /// The whole mesh, or one peer.
    Status {
        /// Which one.
        peer: Option<Target>,
        /// Certificates are judged as at this time, seconds since the Unix epoch.
        as_of: Option<u64>,
    },
    /// One tunnel.
    Command(Command),
    /// Read the manifest again.
    Reload {
        /// Replace every tunnel by one that is authenticated anew.
        reauth: bool,
    },
    /// End; take everything away before if so.
    Stop {
        /// Take SAs, policies, routes and the device away.
        flush: bool,
    },
    /// What decides on a packet.
    Explain(ExplainQuery),
    /// What would change with this manifest.
    Plan(PathBuf),
    /// Whether nothing passed in the clear for so long, and everybody spoke ESP.
    Enforce(Duration),
    /// Keys for Wireshark.
    Keys,
    /// Everything of one peer from now on: where it comes goes to the sender.
    Trace(Target, oneshot::Sender<mpsc::Receiver<Value>>),
    /// What is remembered of one peer.
    Recorded(Target),
    /// Gauges and counters.
    Metrics,
    /// An SA is taken out of the data plane behind the mesh's back: for rehearsals.
    SaGone(SaKey),
}

/// A packet that `explain` is asked about.
#[derive(Deserialize, Serialize, Clone)]
pub struct ExplainQuery {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Protocol number.
    pub protocol: u8,
    /// Destination port.
    pub port: Option<u16>,
}

/// The loop's answer: a JSON body, or why not.
pub type Answer = Result<Value, Refused>;

/// Why a call was refused.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refused {
    /// In words, with the remedy.
    pub error: String,
}

impl Refused {
    /// From anything that says why.
    pub fn because(error: impl ToString) -> Self {
        Self { error: error.to_string() }
    }
}

/// A call with the way back.
pub struct Request {
    /// What is asked.
    pub call: Call,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
}

#[derive(Clone)]
struct Shared {
    calls: mpsc::Sender<Request>,
    /// Ends with the loop, and who monitors with it.
    events: broadcast::WeakSender<Event>,
}

/// The socket's file: gone with this value.
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens the socket. A socket file that nobody listens on is replaced; one that answers is another
/// daemon's; anything else that lies there is somebody's.
pub fn listen(path: &Path) -> Result<(UnixListener, SocketFile), std::io::Error> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(std::io::Error::other(format!(
            "another daemon answers on {}; stop it with `warren stop`",
            path.display()
        )));
    }
    match std::fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            return Err(std::io::Error::other("something that is no socket is there already"));
        }
        Err(_) => {}
    }
    // Born with its mode: between binding and a change of mode anybody could connect.
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let (listener, file) = (listener?, SocketFile(path.to_owned()));
    Ok((listener, file))
}

/// Serves until `stopping`; what has been answered by then is still sent.
pub async fn serve(
    listener: UnixListener,
    calls: mpsc::Sender<Request>,
    events: broadcast::WeakSender<Event>,
    stopping: oneshot::Receiver<()>,
) {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/command", post(command))
        .route("/v1/reload", post(reload))
        .route("/v1/stop", post(stop))
        .route("/v1/explain", get(explain))
        .route("/v1/plan", post(plan))
        .route("/v1/enforce", get(enforce))
        .route("/v1/keys", get(keys))
        .route("/v1/metrics", get(metrics))
        .route("/v1/events", get(monitor))
        .route("/v1/trace", get(trace))
        .route("/v1/trace/recorded", get(recorded))
        .route("/v1/rehearsal/sa-gone", post(sa_gone))
        .with_state(Shared { calls, events });
    let allowed = Allowed { listener, uid: rustix::process::geteuid().as_raw() };
    // Ends only with the process: a failed accept is retried by axum.
    let stopping = async { drop(stopping.await) };
    let _ = axum::serve(allowed, router).with_graceful_shutdown(stopping).await;
}

/// Accepts connections of root and of the daemon's own user only.
struct Allowed {
    listener: UnixListener,
    uid: u32,
}

impl axum::serve::Listener for Allowed {
    type Io = tokio::net::UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
            if stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == self.uid) {
                return (stream, address);
            }
            tracing::warn!("a connection to the control socket by another user was refused");
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

#[derive(Deserialize)]
struct PeerQuery {
    peer: Option<String>,
    as_of: Option<u64>,
}

/// Body of `/v1/command`.
#[derive(Deserialize, Serialize)]
pub struct CommandBody {
    /// What to do.
    pub action: Action,
    /// Address, name or SPI.
    pub peer: String,
}

/// What can be done with one tunnel.
#[derive(Deserialize, Serialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Wanted up.
    Up,
    /// Wanted down.
    Down,
    /// Down, then up.
    Restart,
    /// New keys.
    Rekey,
    /// Another tunnel instead, identities proven anew.
    Reauth,
}

/// Body of `/v1/reload`.
#[derive(Deserialize, Serialize)]
pub struct ReloadBody {
    /// Replace every tunnel by one that is authenticated anew.
    #[serde(default)]
    pub reauth: bool,
}

/// Body of `/v1/stop`.
#[derive(Deserialize, Serialize)]
pub struct StopBody {
    /// Take everything away.
    pub flush: bool,
}

/// Body of `/v1/plan`.
#[derive(Deserialize, Serialize)]
pub struct PlanBody {
    /// Absolute path of the new manifest.
    pub file: PathBuf,
}

async fn status(State(shared): State<Shared>, Query(query): Query<PeerQuery>) -> Response {
    let peer = query.peer.as_deref().map(target);
    ask(&shared, Call::Status { peer, as_of: query.as_of }).await
}

async fn command(State(shared): State<Shared>, Json(body): Json<CommandBody>) -> Response {
    let peer = target(&body.peer);
    let command = match body.action {
        Action::Up => Command::Up(peer),
        Action::Down => Command::Down(peer),
        Action::Restart => Command::Restart(peer),
        Action::Rekey => Command::Rekey(peer),
        Action::Reauth => Command::Reauth(peer),
    };
    ask(&shared, Call::Command(command)).await
}

async fn reload(State(shared): State<Shared>, Json(body): Json<ReloadBody>) -> Response {
    ask(&shared, Call::Reload { reauth: body.reauth }).await
}

async fn stop(State(shared): State<Shared>, Json(body): Json<StopBody>) -> Response {
    ask(&shared, Call::Stop { flush: body.flush }).await
}

async fn explain(State(shared): State<Shared>, Query(query): Query<ExplainQuery>) -> Response {
    ask(&shared, Call::Explain(query)).await
}

async fn plan(State(shared): State<Shared>, Json(body): Json<PlanBody>) -> Response {
    ask(&shared, Call::Plan(body.file)).await
}

#[derive(Deserialize)]
struct EnforceQuery {
    seconds: u64,
}

async fn enforce(State(shared): State<Shared>, Query(query): Query<EnforceQuery>) -> Response {
    ask(&shared, Call::Enforce(Duration::from_secs(query.seconds))).await
}

async fn keys(State(shared): State<Shared>) -> Response {
    ask(&shared, Call::Keys).await
}

async fn metrics(State(shared): State<Shared>) -> Response {
    ask(&shared, Call::Metrics).await
}

/// Body of `/v1/rehearsal/sa-gone`.
#[derive(Deserialize)]
struct SaBody {
    /// Destination of the SA's packets.
    dst: IpAddr,
    /// Hexadecimal.
    spi: String,
}

async fn sa_gone(State(shared): State<Shared>, Json(body): Json<SaBody>) -> Response {
    match u32::from_str_radix(&body.spi, 16) {
        Ok(spi) => ask(&shared, Call::SaGone(SaKey { dst: body.dst, spi: Spi(spi) })).await,
        Err(_) => {
            let refused = Refused::because(format!("`{}` is no SPI", body.spi));
            (StatusCode::CONFLICT, Json(refused)).into_response()
        }
    }
}

/// One JSON object a line, for as long as the client listens. A client that is too slow is told how much it missed.
async fn monitor(State(shared): State<Shared>) -> Response {
    let Some(events) = shared.events.upgrade().map(|events| events.subscribe()) else {
        return stopping();
    };
    let lines = futures_util::stream::unfold(events, |mut events| async move {
        let line = match events.recv().await {
            Ok(event) => serde_json::to_string(&event).unwrap_or_default(),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                serde_json::json!({ "missed": missed }).to_string()
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        Some((Ok::<_, Infallible>(Bytes::from(line + "\n")), events))
    });
    Response::new(Body::from_stream(lines))
}

#[derive(Deserialize)]
struct TracedQuery {
    peer: String,
}

/// One JSON object a line: first who is traced, then what passes and happens, for as long as the client listens.
async fn trace(State(shared): State<Shared>, Query(query): Query<TracedQuery>) -> Response {
    let (sender, receiver) = oneshot::channel();
    let head = match call(&shared, Call::Trace(target(&query.peer), sender)).await {
        Some(Ok(head)) => head,
        Some(Err(refused)) => return (StatusCode::CONFLICT, Json(refused)).into_response(),
        None => return stopping(),
    };
    let Ok(lines) = receiver.await else { return stopping() };
    let lines = futures_util::stream::unfold((Some(head), lines), |(head, mut lines)| async move {
        let line = match head {
            Some(head) => head,
            None => lines.recv().await?,
        };
        Some((Ok::<_, Infallible>(Bytes::from(format!("{line}\n"))), (None, lines)))
    });
    Response::new(Body::from_stream(lines))
}

async fn recorded(State(shared): State<Shared>, Query(query): Query<TracedQuery>) -> Response {
    ask(&shared, Call::Recorded(target(&query.peer))).await
}

fn target(text: &str) -> Target {
    match text.parse() {
        Ok(target) => target,
        Err(never) => match never {},
    }
}

async fn ask(shared: &Shared, asked: Call) -> Response {
    match call(shared, asked).await {
        Some(Ok(value)) => Json(value).into_response(),
        Some(Err(refused)) => (StatusCode::CONFLICT, Json(refused)).into_response(),
        None => stopping(),
    }
}

/// The loop's answer; `None` once it has ended.
async fn call(shared: &Shared, call: Call) -> Option<Answer> {
    let (answer, reply) = oneshot::channel();
    shared.calls.send(Request { call, answer }).await.ok()?;
    reply.await.ok()
}

fn stopping() -> Response {
    let refused = Refused::because("the daemon is stopping");
    (StatusCode::SERVICE_UNAVAILABLE, Json(refused)).into_response()
}
