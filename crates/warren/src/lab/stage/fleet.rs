//! Manifests and daemons.

use super::*;

impl Stage<'_> {
    /// Where a host's manifest is.
    pub fn manifest(&self, host: usize) -> PathBuf {
        daemons::folder(&self.lab.dir, &self.lab.hosts[host]).join("manifest.yml")
    }

    /// The folder with the lab's credentials: `ca.pem`, `ca.key`, `instance.pem`, `instance.key`.
    pub fn credentials(&self) -> &Path {
        &self.lab.dir
    }

    /// From the next start on daemons have the credentials that their manifests name, and no stand-ins; and so has the
    /// recipe, whatever the operator's manifest said.
    pub fn certify(&mut self) -> Result<(), Stopped> {
        if !self.lab.dir.join("ca.key").exists() {
            crate::lab::write_credentials(&self.lab.dir, "lab CA")
                .map_err(|_| "no CA".to_owned())?;
        }
        self.lab.credentials = None;
        self.recipe = self.recipe.clone().certified(&self.lab.dir, "instance", &["ca"]);
        self.put_manifests(&self.recipe)
    }

    /// Writes a host's manifest. The daemon does not read it by itself.
    pub fn put_manifest(&self, host: usize, recipe: &Recipe) -> Result<(), Stopped> {
        let file = self.manifest(host);
        let written = fs::create_dir_all(file.parent().unwrap_or(&self.lab.dir))
            .and_then(|()| fs::write(&file, recipe.text()));
        written.map_err(|error| Stopped::Failed(format!("{}: {error}", file.display())))
    }

    /// Writes the same manifest for every host.
    pub fn put_manifests(&self, recipe: &Recipe) -> Result<(), Stopped> {
        (0..self.len()).try_for_each(|host| self.put_manifest(host, recipe))
    }

    /// Whether the kernel carries the packets; known once a daemon runs.
    pub fn kernel(&self) -> bool {
        self.findings.data_plane == "kernel"
    }

    /// Starts a host's daemon, and does not wait for it.
    pub fn launch(&mut self, host: usize) -> Result<(), Stopped> {
        let it = &self.lab.hosts[host];
        let state = self.state.join(&it.name);
        let manifest = self.manifest(host);
        let how = Start {
            program: &self.programs[host],
            manifest: &manifest,
            credentials: self.lab.credentials.as_deref(),
            data_plane: self.lab.data_plane,
            address: it.more.is_empty(),
            state: &state,
            more: &self.more,
        };
        self.daemons[host] = Some(daemons::start(&self.lab.dir, it, &how)?);
        Ok(())
    }

    /// Waits until a host's daemon answers. How long it took from here.
    pub fn answers(&mut self, host: usize) -> Result<Duration, Stopped> {
        let start = Instant::now();
        let end = start + START;
        loop {
            self.go_on()?;
            if let Some(status) = self.status(host) {
                if let Some(kind) = status["node"]["data_plane"].as_str() {
                    self.findings.data_plane = kind.to_owned();
                }
                return Ok(start.elapsed());
            }
            let ended = self.daemons[host]
                .as_mut()
                .is_some_and(|daemon| !matches!(daemon.try_wait(), Ok(None)));
            if ended || Instant::now() > end {
                let log = daemons::log_end(&self.lab.dir, &self.lab.hosts[host]);
                let name = self.name(host);
                return Err(Stopped::Failed(format!(
                    "the daemon of {name} did not start; its log ends with:\n{log}"
                )));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Starts a host's daemon and waits until it answers.
    pub fn start(&mut self, host: usize) -> Result<Duration, Stopped> {
        let start = Instant::now();
        self.launch(host)?;
        self.answers(host)?;
        Ok(start.elapsed())
    }

    /// Starts the daemons of these hosts at the same instant, and waits until all answer.
    pub fn start_all(&mut self, hosts: impl IntoIterator<Item = usize>) -> Result<(), Stopped> {
        let hosts: Vec<_> = hosts.into_iter().collect();
        hosts.iter().try_for_each(|host| self.launch(*host))?;
        hosts.iter().try_for_each(|host| self.answers(*host).map(drop))
    }

    /// Ends a host's daemon by SIGTERM, and waits until it has ended.
    pub fn terminate(&mut self, host: usize) -> Result<(), Stopped> {
        self.signal(host, Signal::TERM);
        self.ended(host)
    }

    /// Ends every process on a host by SIGKILL: its daemon, and what that may have left.
    pub fn kill_everything(&mut self, host: usize) -> Result<(), Stopped> {
        net::end_processes(&self.lab.hosts[host..=host]);
        self.ended(host)
    }

    /// Ends a host's daemon, which takes everything of its own away.
    pub fn flush(&mut self, host: usize) -> Result<(), Stopped> {
        self.post(host, "/v1/stop", &json!({ "flush": true }))?;
        self.ended(host)
    }

    fn signal(&self, host: usize, signal: Signal) {
        if let Some(daemon) = &self.daemons[host] {
            let _ = kill_process(Pid::from_child(daemon), signal);
        }
    }

    fn ended(&mut self, host: usize) -> Result<(), Stopped> {
        let Some(mut daemon) = self.daemons[host].take() else { return Ok(()) };
        let end = Instant::now() + START;
        while matches!(daemon.try_wait(), Ok(None)) {
            if Instant::now() > end {
                self.daemons[host] = Some(daemon);
                return Err(Stopped::Failed(format!(
                    "the daemon of {} did not end",
                    self.name(host)
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The most memory that a host's daemon has needed, in KiB.
    pub fn memory(&self, host: usize) -> Result<u64, Stopped> {
        self.kib(host, "VmHWM:")
    }

    /// What a host's daemon has of memory that is its own, in KiB.
    pub fn resident(&self, host: usize) -> Result<u64, Stopped> {
        self.kib(host, "RssAnon:")
    }

    fn kib(&self, host: usize, what: &str) -> Result<u64, Stopped> {
        let daemon = self.daemons[host].as_ref().ok_or_else(|| "no daemon".to_owned())?;
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.id()));
        let status = status.map_err(|error| error.to_string())?;
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        let number = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
        Ok(number.ok_or_else(|| "the kernel does not say what memory is used".to_owned())?)
    }

    /// A host's manifest, as its daemon reads it.
    pub fn accepted(&self, host: usize) -> Result<load::Accepted, Stopped> {
        let credentials = self.lab.credentials.as_deref();
        let now = linux::clock::unix_now();
        let read = load::load(&self.manifest(host), &crypto::native::Native, now, credentials);
        Ok(read.map_err(|refused| refused.to_string())?)
    }

    /// What a host's state directory is: its lock, its journal.
    pub fn state_dir(&self, host: usize) -> PathBuf {
        self.state.join(self.name(host))
    }

    /// From the next start on a host runs another build: the one that was named, or a copy of this one.
    pub fn replace_program(&mut self, host: usize) -> Result<(), Stopped> {
        let other = match &self.replacement {
            Some(path) => fs::canonicalize(path)
                .map_err(|error| Stopped::Failed(format!("{}: {error}", path.display())))?,
            None => {
                let copy = self.lab.dir.join(format!("warren-of-{}", self.name(host)));
                let own = std::env::current_exe().map_err(|error| error.to_string())?;
                fs::copy(own, &copy).map_err(|error| error.to_string())?;
                copy
            }
        };
        self.programs[host] = other;
        Ok(())
    }

    /// Tells a host's daemon.
    pub fn post(&self, host: usize, path: &str, body: &Value) -> Result<Value, Stopped> {
        client::post(&self.control(host), path, body).map_err(|failure| self.refused(host, failure))
    }

    fn refused(&self, host: usize, failure: Failure) -> Stopped {
        let text = match failure {
            Failure::No(text) | Failure::Usage(text) | Failure::Unreachable(text) => text,
            Failure::Printed => "refused".to_owned(),
        };
        Stopped::Failed(format!("{}: {text}", self.name(host)))
    }

    /// A host's control socket.
    pub fn control(&self, host: usize) -> PathBuf {
        daemons::control(&self.lab.dir, &self.lab.hosts[host])
    }

    /// A host reads its manifest again.
    pub fn reload(&self, host: usize) -> Result<(), Stopped> {
        self.post(host, "/v1/reload", &json!({})).map(drop)
    }

    /// The same, and all its tunnels are made anew, each before the old one goes.
    pub fn reload_and_reauth(&self, host: usize) -> Result<(), Stopped> {
        self.post(host, "/v1/reload", &json!({ "reauth": true })).map(drop)
    }

    /// A host's whole status; `None` while no daemon answers.
    pub fn status(&self, host: usize) -> Option<Value> {
        client::get(&self.control(host), "/v1/status").ok()
    }

    /// What a host says of each other host that it knows.
    pub fn peers(&self, host: usize) -> Vec<(usize, Value)> {
        let mut status = self.status(host).unwrap_or_default();
        let Value::Array(peers) = status["peers"].take() else { return Vec::new() };
        let index = |peer: &Value| {
            let address: IpAddr = peer["address"].as_str()?.parse().ok()?;
            self.lab.hosts.iter().position(|host| host.address == address)
        };
        peers.into_iter().filter_map(|peer| Some((index(&peer)?, peer))).collect()
    }

    /// What a host says of another.
    pub fn peer(&self, host: usize, other: usize) -> Value {
        let peers = self.peers(host);
        peers.into_iter().find(|(peer, _)| *peer == other).map(|(_, peer)| peer).unwrap_or_default()
    }

    /// This program on a host, talking to that host's daemon.
    pub fn warren(&self, host: usize, args: &[&str]) -> Result<std::process::Output, Stopped> {
        let mut command = Command::new(&self.programs[host]);
        command.arg("--control").arg(self.control(host)).args(args);
        self.run(host, command)
    }

    /// Turns a host's leak guard on, as its unit does before the network is up, or off.
    pub fn guard(&self, host: usize, on: bool) -> Result<(), Stopped> {
        let (manifest, dir) = (self.manifest(host), self.state_dir(host).join("guard"));
        let (manifest, dir) = (manifest.display().to_string(), dir.display().to_string());
        let address = self.address(host).to_string();
        let args: &[&str] = match on {
            true => &["guard", "on", "-m", &manifest, "--address", &address, "--state-dir", &dir],
            false => &["guard", "off"],
        };
        let output = self.warren(host, args)?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(Stopped::Failed(format!("{}: warren guard: {text}", self.name(host))))
    }

    /// A command on a host.
    pub fn run(&self, host: usize, mut command: Command) -> Result<std::process::Output, Stopped> {
        let netns = self.netns(host)?;
        netns.confine(&mut command, &[]).map_err(|error| error.to_string())?;
        Ok(command.output().map_err(|error| format!("{command:?}: {error}"))?)
    }

    /// A host's network namespace.
    pub fn netns(&self, host: usize) -> Result<Netns, Stopped> {
        Ok(Netns::open(&self.lab.hosts[host].namespace()).map_err(|error| error.to_string())?)
    }

    /// Cuts a host off, or connects it again.
    pub fn cut_off(&self, host: usize, cut: bool) -> Result<(), Stopped> {
        Ok(net::connect_ports(&self.lab.hosts[host], !cut)?)
    }
}
