//! Two hosts as network namespaces with one wire between them; taken down when dropped, also after a failure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Where Warren runs.
pub const OURS: &str = "10.9.0.1";
/// Where strongSwan runs.
pub const THEIRS: &str = "10.9.0.2";

/// The two hosts, and a folder for their files.
pub struct Hosts {
    prefix: String,
    /// Configurations, certificates, logs.
    pub dir: PathBuf,
}

impl Hosts {
    /// Makes both namespaces and the wire.
    pub fn new(number: usize) -> Result<Self, String> {
        let prefix = format!("wi{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(format!("warren-interop-{prefix}"));
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let hosts = Self { prefix, dir };
        let (a, b) = (hosts.name("a"), hosts.name("b"));
        for name in [&a, &b] {
            run("ip", &["netns", "add", name])?;
            run("ip", &["-n", name, "link", "set", "lo", "up"])?;
        }
        run(
            "ip",
            &[
                "link", "add", "wire", "netns", &a, "type", "veth", "peer", "name", "wire",
                "netns", &b,
            ],
        )?;
        for (name, address) in [(&a, OURS), (&b, THEIRS)] {
            run("ip", &["-n", name, "addr", "add", &format!("{address}/24"), "dev", "wire"])?;
            run("ip", &["-n", name, "link", "set", "wire", "up"])?;
        }
        Ok(hosts)
    }

    /// Runs a program on a host and gives its output, whatever it says.
    pub fn on(&self, host: &str, program: &str, args: &[&str]) -> Result<Output, String> {
        self.command(host, program, args).output().map_err(|error| format!("{program}: {error}"))
    }

    /// Starts a program on a host; its output goes to a file in the folder.
    pub fn start(
        &self,
        host: &str,
        program: &str,
        args: &[&str],
        env: &[(&str, &Path)],
        log: &str,
    ) -> Result<Running, String> {
        let file = |name: &str| {
            fs::File::create(self.dir.join(name)).map_err(|error| format!("{name}: {error}"))
        };
        let mut command = self.command(host, program, args);
        command
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(file(log)?)
            .stderr(file(&format!("{log}.err"))?);
        command.spawn().map(Running).map_err(|error| format!("{program}: {error}"))
    }

    fn command(&self, host: &str, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(host), program]).args(args);
        command
    }

    fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in ["a", "b"] {
            let _ = run("ip", &["netns", "del", &self.name(host)]);
        }
        if std::env::var_os("KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// A program that ends with this value.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM first: both daemons take their routes and devices away.
        let _ = Command::new("kill").arg(self.0.id().to_string()).output();
        let ended = eventually(Duration::from_secs(5), || matches!(self.0.try_wait(), Ok(Some(_))));
        if !ended {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

/// Waits until `holds`, looking every 50 ms.
pub fn eventually(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        sleep(Duration::from_millis(50));
    }
}

/// Runs a program that must succeed.
pub fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output =
        Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!(
        "{program} {}: {}{}",
        args.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}
