//! `warren replay RECORDING`: a recording through the same state machine again.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufReader, Read};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use crypto::native::Native;
use ike::{Done, Job, JobId};
use ipsec::change::Batch;
use mesh::recording::{Begin, Bundle, Given, Step};
use mesh::{Input, Loaded, Mesh, Output};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::args;
use crate::daemon::flight::{Entry, What};
use crate::daemon::tape::Outputs;
use crate::daemon::trace::Teller;
use crate::exit::Failure;
use crate::load::load_bundle;
use crate::print::println;

/// One step has a manifest with its files at most.
const LONGEST: u32 = 64 << 20;
/// Batches that may be named by a refusal still.
const BATCHES: usize = 256;

/// Plays it, shows messages and events, and compares what comes out; ends 1 where that differs, or the file is damaged.
pub fn run(args: &args::Replay, json: bool) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::No(format!("{}: {error}", args.file.display()));
    let mut file = Recording::open(&args.file).map_err(failed)?;
    let begin =
        file.next().map_err(failed)?.ok_or_else(|| Failure::No("the recording is empty".into()))?;
    let begin = Begin::decode(&begin).map_err(Failure::no)?;
    let mut player = Player::new(&begin, args, json);
    let mut steps = 0u64;
    let mut torn = false;
    loop {
        let step = match file.next() {
            Ok(Some(step)) => Step::decode(&step).map_err(|error| at(steps, error))?,
            Ok(None) => break,
            // The daemon was killed in the middle of it.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                torn = true;
                break;
            }
            Err(error) => return Err(failed(error)),
        };
        player.outputs_are(steps, step.outputs)?;
        player.give(step).map_err(|error| at(steps, error))?;
        steps += 1;
    }
    let Player { messages, events, .. } = player;
    if json {
        println!(
            "{}",
            json!({ "same": true, "inputs": steps, "messages": messages, "events": events, "torn": torn })
        );
    } else {
        println!(
            "{steps} inputs, {messages} messages, {events} events: what came out is what was recorded"
        );
        if torn {
            println!(
                "the recording ends in the middle of an input, as that of a daemon does that was killed"
            );
        }
    }
    Ok(())
}

fn at(step: u64, error: impl std::fmt::Display) -> Failure {
    Failure::No(format!("input {step}: {error}"))
}

/// Pieces of a file, each behind its length.
struct Recording(BufReader<File>);

impl Recording {
    fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self(BufReader::new(File::open(path)?)))
    }

    fn next(&mut self) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
        let mut len = [0; 4];
        match self.0.read(&mut len)? {
            0 => return Ok(None),
            got => self.0.read_exact(&mut len[got..])?,
        }
        let len = u32::from_be_bytes(len);
        if len > LONGEST {
            return Err(std::io::Error::other("this is no recording, or a damaged one"));
        }
        let mut bytes = Zeroizing::new(Vec::new());
        let got = (&mut self.0).take(len.into()).read_to_end(&mut bytes)?;
        if got < len as usize {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(bytes))
    }
}

struct Player<'a> {
    mesh: Mesh,
    me: IpAddr,
    jobs: BTreeMap<JobId, Job>,
    batches: VecDeque<(u64, Batch)>,
    outputs: Outputs,
    only: Option<&'a str>,
    detail: bool,
    json: bool,
    tellers: BTreeMap<IpAddr, Teller>,
    messages: u64,
    events: u64,
}

impl<'a> Player<'a> {
    fn new(begin: &Begin, args: &'a args::Replay, json: bool) -> Self {
        let seed = begin.seed.expose().first_chunk().copied().unwrap_or_default();
        Self {
            mesh: Mesh::new(begin.identity.clone(), Arc::new(Native), seed, begin.now),
            me: begin.identity.address,
            jobs: BTreeMap::new(),
            batches: VecDeque::new(),
            outputs: Outputs::default(),
            only: args.peer.as_deref(),
            detail: args.detail,
            json,
            tellers: BTreeMap::new(),
            messages: 0,
            events: 0,
        }
    }

    /// What came out since the input before is what came out then.
    fn outputs_are(&mut self, step: u64, recorded: [u8; 16]) -> Result<(), Failure> {
        if self.outputs.take() == recorded {
            return Ok(());
        }
        Err(Failure::No(format!(
            "what came out before input {step} is not what came out when it was recorded: this build decides otherwise there"
        )))
    }

    fn give(&mut self, step: Step) -> Result<(), String> {
        let now = step.now;
        let unix = now.unix;
        let input = match step.given {
            Given::Datagram(datagram) => {
                self.show(
                    datagram.remote.ip(),
                    unix,
                    What::Message {
                        src: datagram.remote,
                        dst: datagram.local,
                        bytes: datagram.bytes.clone(),
                    },
                );
                Input::Datagram(datagram)
            }
            Given::Journal(found) => Input::Journal(found),
            Given::Orders(orders) => Input::Orders(orders),
            Given::Manifest(bundle) => Input::Manifest(Box::new(self.load(&bundle, unix)?)),
            Given::Applied(number, refusals) => {
                let batch = self.batches.iter().find(|(known, _)| *known == number);
                let (_, batch) = batch.ok_or("it refuses a batch that never came out")?;
                Input::Applied(batch.clone(), refusals)
            }
            Given::Snapshot(snapshot) => Input::Snapshot(snapshot),
            Given::Kernel(event) => Input::Kernel(event),
            Given::JobDone(id, signature) => {
                let job = self.jobs.remove(&id);
                let done = match (signature, job) {
                    (Some(signature), _) => Done::Sign(Ok(signature)),
                    (None, Some(job)) => job.work.run(&Native),
                    (None, None) => return Err("it ends a job that was never begun".into()),
                };
                Input::JobDone(id, done)
            }
            Given::Addresses(own) => Input::Addresses(own),
            Given::Tick => Input::Tick,
            Given::Command(command) => {
                // Refused then, refused now.
                let _ = self.mesh.command(now, command);
                self.carry_out(unix);
                return Ok(());
            }
        };
        self.mesh.handle(now, input);
        self.carry_out(unix);
        Ok(())
    }

    fn load(&self, bundle: &Bundle, unix: u64) -> Result<Loaded, String> {
        let accepted = load_bundle(bundle, &Native, unix).map_err(|error| error.to_string())?;
        let loaded = accepted.for_host(self.me, &bundle.own).map_err(|error| error.to_string())?;
        Ok(Loaded { prefer_encap: bundle.prefer_encap, ..loaded })
    }

    fn carry_out(&mut self, unix: u64) {
        loop {
            let output = self.mesh.poll();
            self.outputs.add(&output);
            match output {
                Output::Sleep(..) => return,
                Output::Apply(batch) => {
                    self.batches.push_back((self.outputs.batches - 1, batch));
                    if self.batches.len() > BATCHES {
                        self.batches.pop_front();
                    }
                }
                Output::Job(job) => drop(self.jobs.insert(job.id, job)),
                Output::Transmit(datagram) => {
                    let (src, dst) = (datagram.local, datagram.remote);
                    self.show(dst.ip(), unix, What::Message { src, dst, bytes: datagram.bytes });
                }
                Output::Report(event) => {
                    if let Some(peer) = event.peer {
                        self.show(peer, unix, What::Event(Box::new(event)));
                    }
                }
                Output::Journal(..) | Output::Inspect => {}
            }
        }
    }

    fn show(&mut self, peer: IpAddr, unix: u64, what: What) {
        match what {
            What::Message { .. } => self.messages += 1,
            What::Event(_) => self.events += 1,
        }
        let wanted = self.only.is_none_or(|only| match only.parse() {
            Ok(target) => self.mesh.resolve(&target).is_ok_and(|address| address == peer),
        });
        if !wanted {
            return;
        }
        let entry = Entry { at: unix.saturating_mul(1_000_000_000), what };
        let line = self.tellers.entry(peer).or_default().line(&self.mesh, peer, &entry);
        self.print(&line);
    }

    fn print(&self, line: &Value) {
        if self.json {
            println!("{line}");
        } else {
            super::trace::shown(line, self.detail).iter().for_each(|line| println!("{line}"));
        }
    }
}
