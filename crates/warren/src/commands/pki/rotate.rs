//! `warren pki rotate`: leads through the phases of a rotation, and refuses a step that would break tunnels.

use std::path::Path;

use serde_json::{Value, json};

use super::fleet::{Fleet, Host};
use super::folder::{Folder, NEXT};
use super::phase::{Phase, Rotation};
use super::renew::{make, print_made, refuse, rejected};
use crate::args::{PkiRotate, RotateStep};
use crate::commands::layout::{hanging, short, wrapped};
use crate::commands::status::seconds;
use crate::exit::Failure;
use crate::pki::{self, Request};
use crate::print::println;

/// Shows where the hosts are, or takes a step.
pub fn run(control: &Path, args: &PkiRotate, json: bool) -> Result<(), Failure> {
    let folder = Folder::open(&args.dir, &args.name)?;
    let fleet = Fleet::gather(control, &args.status)?;
    let tour = Tour { folder, fleet, args };
    match args.step {
        RotateStep::Show => tour.show(json),
        RotateStep::AppendCa => tour.append_ca(json),
        RotateStep::NewLeaf => tour.new_leaf(json),
        RotateStep::DropCa => tour.drop_ca(json),
    }
}

struct Tour<'a> {
    folder: Folder,
    fleet: Fleet,
    args: &'a PkiRotate,
}

impl Tour<'_> {
    /// Each host with its phase; where no CA is being rotated, all are as they were, or nobody knows.
    fn phases(&self) -> Vec<(&Host, Phase)> {
        let rotation = self.folder.rotation();
        let phase =
            |host: &Host| rotation.as_ref().map_or_else(|| resting(host), |r| r.phase(host));
        self.fleet.hosts().map(|host| (host, phase(host))).collect()
    }

    /// Hosts that are not as far as the folder.
    fn behind(&self) -> Vec<&Host> {
        let here = self.folder.phase();
        self.phases().into_iter().filter(|(_, phase)| *phase < here).map(|(host, _)| host).collect()
    }

    /// Everybody must be as far as the folder before it goes on.
    fn all_follow(&self) -> Result<(), Failure> {
        if self.args.force {
            return Ok(());
        }
        let (known, wanted) = (self.fleet.len(), self.args.hosts.unwrap_or(0));
        if known < wanted {
            return Err(Failure::No(format!(
                "{known} hosts are known, {wanted} were named by --hosts; give the `warren status --json` of more hosts with --status"
            )));
        }
        let rows: Vec<_> =
            self.phases().into_iter().filter(|(_, p)| *p < self.folder.phase()).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let shown =
            rows.iter().take(10).map(|(host, phase)| format!("\n  {:<32} {phase}", host.label()));
        let shown: String = shown.collect();
        let more = rows.len().saturating_sub(10);
        let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
        Err(Failure::No(format!(
            "not yet: these hosts must be at `{}` first{shown}{more}\n{}",
            self.folder.phase(),
            FOLLOW
        )))
    }

    /// A host that nobody has seen since this daemon started is in no list: the number says that none is missing.
    fn none_is_missing(&self, step: &str) -> Result<(), Failure> {
        if self.args.force || self.args.hosts.is_some() {
            return Ok(());
        }
        let known = self.fleet.len();
        Err(Failure::No(format!(
            "{known} hosts are known, and nothing says that these are all: write `warren pki rotate {step} --hosts N`, N \
             the number of hosts in the fleet, this one among them; `--force` goes on whatever is known"
        )))
    }

    fn append_ca(&self, json: bool) -> Result<(), Failure> {
        let text = match self.folder.phase() {
            Phase::Appended => {
                "the next CA is in ca.pem already; `warren pki rotate` says who has it"
            }
            Phase::NewLeaf => {
                "a rotation is under way, and further; `warren pki rotate` says what comes next"
            }
            _ => "",
        };
        if !text.is_empty() {
            return Err(Failure::No(text.into()));
        }
        // One more CA that is accepted breaks nothing; but the last rotation must be over.
        if self.folder.phase() == Phase::Dropped {
            self.all_follow()?;
        }
        let dir = &self.folder.dir;
        // One that is there was made by a step that did not come to its end.
        let next = if self.folder.next.is_some() {
            pki::load(dir, NEXT).map_err(Failure::no)?
        } else {
            let next = pki::make_ca(&self.request()?).map_err(Failure::no)?;
            // A key without its certificate is what an interrupted step left.
            pki::store(dir, NEXT, &next, true).map_err(Failure::no)?;
            next
        };
        let path = self.folder.append(&next.certificate)?;
        let next_step =
            "bring ca.pem to the hosts, one after the other, and there: warren reload --reauth";
        done(json, &[path], None, next_step);
        Ok(())
    }

    fn request(&self) -> Result<Request<'_>, Failure> {
        let unix_now = linux::clock::unix_now();
        let taken = |name: &str| {
            let subject = format!("CN={name}");
            self.folder.cas.iter().chain([&self.folder.leaf]).any(|c| c.subject_text == subject)
        };
        let name = self.args.ca_name.as_str();
        if taken(name) {
            return Err(Failure::No(format!(
                "`{name}` is the name of a CA or of the certificate already; `--ca-name` gives another one"
            )));
        }
        Ok(Request {
            name,
            key: self.args.key.unwrap_or_default(),
            seconds: pki::days(self.args.ca_days),
            sans: &[],
            unix_now,
        })
    }

    fn new_leaf(&self, json: bool) -> Result<(), Failure> {
        match self.folder.phase() {
            Phase::NewLeaf => {
                let text =
                    "the new certificate is made already; `warren pki rotate` says who has it";
                return Err(Failure::No(text.into()));
            }
            Phase::Before if self.folder.next.is_some() => {
                return Err(Failure::No("`append-ca` did not come to its end; do it again".into()));
            }
            _ => self.all_follow()?,
        }
        self.none_is_missing("new-leaf")?;
        let hosts: Vec<_> = self.fleet.hosts().collect();
        refuse(&rejected(&self.folder, &hosts), self.args.force)?;
        let (leaf, note) = make(&self.folder, self.args.days, self.args.key)?;
        let paths = self.folder.replace_leaf(&leaf)?;
        let next_step =
            "bring both to the hosts, one after the other, and there: warren reload --reauth";
        done(json, &paths, note.as_deref(), next_step);
        Ok(())
    }

    fn drop_ca(&self, json: bool) -> Result<(), Failure> {
        if self.folder.phase() != Phase::NewLeaf {
            let text = match self.folder.phase() {
                Phase::Appended => {
                    "hosts show certificates under the old CA: `warren pki rotate new-leaf` comes before"
                }
                _ => "there is no old CA; `warren pki rotate append-ca` begins a rotation",
            };
            return Err(Failure::No(text.into()));
        }
        self.all_follow()?;
        self.none_is_missing("drop-ca")?;
        let paths = self.folder.drop_old()?;
        let next_step =
            "bring ca.pem to the hosts, one after the other, and there: warren reload --reauth";
        done(json, &paths, None, next_step);
        Ok(())
    }

    fn show(&self, json: bool) -> Result<(), Failure> {
        let rows = self.phases();
        let behind = self.behind();
        let next = self.next(behind.is_empty());
        if json {
            println!("{}", self.shown(&rows, &behind, next));
        } else {
            print(&self.folder, &rows, next);
        }
        if behind.is_empty() { Ok(()) } else { Err(Failure::Printed) }
    }

    fn next(&self, all: bool) -> &'static str {
        match (all, self.folder.phase()) {
            (false, Phase::Before) => UNKNOWN,
            (false, _) => FOLLOW,
            (true, Phase::Before) if self.folder.next.is_some() => {
                "warren pki rotate append-ca, once more: it did not come to its end"
            }
            (true, Phase::Appended) => {
                "warren pki rotate new-leaf --hosts N, N the number of all hosts"
            }
            (true, Phase::NewLeaf) => {
                "warren pki rotate drop-ca --hosts N, N the number of all hosts"
            }
            (true, Phase::Dropped) => "nothing: the rotation is done",
            (true, _) => {
                "warren pki rotate new-leaf --hosts N for another certificate of this CA, append-ca for another CA"
            }
        }
    }

    fn shown(&self, rows: &[(&Host, Phase)], behind: &[&Host], next: &str) -> Value {
        let hosts = rows.iter().map(|(host, phase)| {
            json!({
                "address": host.address, "name": host.name, "phase": phase.number(),
                "serial": host.leaf.as_ref().map(|leaf| &leaf.serial),
                "current": self.folder.is_of(host),
                "ca": host.leaf.as_ref().and_then(|leaf| leaf.ca.as_ref()),
                "trusts": host.trusts, "age_s": host.age_s,
            })
        });
        let of = |rotation: Rotation| json!({ "old": rotation.old, "new": rotation.new });
        json!({
            "phase": self.folder.phase().number(), "rotation": self.folder.rotation().map(of),
            "hosts": hosts.collect::<Vec<_>>(), "next": next,
            "behind": behind.iter().map(|host| host.address).collect::<Vec<_>>(),
        })
    }
}

const FOLLOW: &str = "bring the folder's ca.pem, certificate and key there, and run `warren reload --reauth` on each; \
                      of a host that is not known give its `warren status --json` with --status, or have it authenticated \
                      anew: `warren up` or `warren reload --reauth` here";
const UNKNOWN: &str = "give the `warren status --json` of hosts that are not known with --status, \
                       or have them authenticated anew: `warren up` or `warren reload --reauth` here";

fn resting(host: &Host) -> Phase {
    if host.trusts.is_some() { Phase::Before } else { Phase::Unknown }
}

fn done(json: bool, paths: &[std::path::PathBuf], note: Option<&str>, next: &str) {
    if json {
        println!("{}", json!({ "written": paths, "note": note, "next": next }));
    } else {
        print_made(paths, note);
        wrapped(0, next);
    }
}

fn print(folder: &Folder, rows: &[(&Host, Phase)], next: &str) {
    match &folder.next {
        Some(next) => hanging("next CA      ", &next.subject_text),
        None => hanging("CA           ", &folder.cas[0].subject_text),
    }
    hanging(
        "certificate  ",
        &format!("{} (serial {})", folder.leaf.subject_text, folder.leaf.serial_text()),
    );
    println!("folder       {}\n\n{:<40} {:<22} CERTIFICATE", folder.phase(), "HOST", "PHASE");
    for (host, phase) in rows {
        let serial = match &host.leaf {
            Some(_) if folder.is_of(host) => "the folder's".to_owned(),
            Some(leaf) => short(&leaf.serial, 14),
            None => "-".to_owned(),
        };
        let age = host.age_s.map_or(String::new(), |age| format!(", seen {} ago", seconds(age)));
        println!("{:<40} {:<22} {serial}{age}", short(&host.label(), 40), phase.to_string());
    }
    println!();
    hanging("next: ", next);
}
