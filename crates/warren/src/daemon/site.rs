//! Where this host stands: its manifest's file, its address, and what the manifest means outside the mesh.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crypto::Provider;
use ike::Now;
use ipsec::sa::{Mode, Sa};
use mesh::manifest::Place;
use mesh::plan::Plan;
use mesh::recording::Bundle;
use mesh::{Loaded, Mesh};
use serde_json::{Value, json};

use super::control::{Answer, Refused};
use crate::load::{Accepted, Ended, Rejected, load_with};
use crate::wireshark;

/// The manifest in force, with what is needed to read it again.
pub struct Site {
    path: PathBuf,
    rehearsal: Option<PathBuf>,
    provider: Arc<dyn Provider>,
    address: IpAddr,
    plan: Plan,
    /// Of the manifest's file in force.
    sha256: String,
    /// The addresses by which others may reach it, as they were last.
    places: Vec<IpAddr>,
    /// This host's certificate in force, DER; empty if there is none.
    leaf: Vec<u8>,
    /// What the manifest in force was read from, until it is asked for.
    bundle: Option<Bundle>,
}

impl Site {
    /// Reads the manifest for the first time; also what the mesh is to be given, and notes for the operator.
    pub fn open(
        path: &Path,
        rehearsal: Option<&Path>,
        provider: Arc<dyn Provider>,
        wanted: Option<IpAddr>,
        unix_now: u64,
    ) -> Result<(Self, Loaded, Vec<String>), Rejected> {
        let accepted = load_with(path, &*provider, unix_now, rehearsal, Ended::Accepted)?;
        let own = own_addresses();
        let address = accepted.choose_address(wanted, &own)?;
        let loaded = accepted.for_host(address, &own)?;
        let (path, rehearsal) = (path.to_owned(), rehearsal.map(Path::to_owned));
        let (plan, leaf) = (loaded.plan.clone(), accepted.leaf().to_vec());
        let sha256 = loaded.sha256.clone();
        let bundle = Some(Bundle { own, ..accepted.bundle });
        let places = Vec::new();
        let site = Self { path, rehearsal, provider, address, plan, sha256, places, leaf, bundle };
        Ok((site, loaded, accepted.notes))
    }

    /// What the manifest in force was read from, with its credentials; kept no longer than until it is asked for.
    pub fn take_bundle(&mut self) -> Option<Bundle> {
        self.bundle.take()
    }

    /// The manifest's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The addresses by which others may reach this host, where tunnels can move and they are others than at the last call.
    pub fn changed_addresses(&mut self, device: Option<&str>) -> Option<Vec<IpAddr>> {
        let mobile = self.plan.mode() == Mode::Tunnel && self.plan.manifest().mobike;
        let own = mobile.then(|| places(device))?;
        (own != self.places).then(|| {
            self.places.clone_from(&own);
            own
        })
    }

    /// This host's address in the mesh.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// What is in force.
    pub fn current(&self) -> &Plan {
        &self.plan
    }

    /// All addresses of this host; of equals that which takes part already comes first.
    fn own_addresses(&self) -> Vec<IpAddr> {
        let there = own_addresses();
        let (mut own, rest): (Vec<_>, Vec<_>) =
            there.into_iter().partition(|address| self.plan.is_me(*address));
        own.extend(rest);
        own
    }

    /// An address that takes part from the next reload on: it has come since the last one, of the family that this host
    /// had none of in the mesh.
    pub fn newcomer(&self) -> Option<IpAddr> {
        let manifest = self.plan.manifest();
        let wanted = |net: &ipnet::IpNet| self.plan.own(net.addr()).is_none();
        if !manifest.ipsec_subnets.iter().any(wanted) {
            return None;
        }
        let may_be = |address: &IpAddr| {
            self.plan.own(*address).is_none()
                && matches!(manifest.place_of(*address), Place::Protected(_))
        };
        own_addresses().into_iter().find(may_be)
    }

    /// Whether the manifest's file says what is in force.
    pub fn is_current(&self) -> bool {
        self.sha256 == crate::load::digest(&self.path).unwrap_or_default()
    }

    /// Reads the manifest again. A refused one changes nothing; an accepted one is in force from here on.
    pub fn reload(&mut self, unix_now: u64) -> Result<(Loaded, Vec<String>), Rejected> {
        let (loaded, accepted) = self.read(&self.path, self.rehearsal.as_deref(), unix_now)?;
        self.plan = loaded.plan.clone();
        self.sha256.clone_from(&loaded.sha256);
        self.leaf = accepted.leaf().to_vec();
        self.bundle = Some(accepted.bundle);
        Ok((loaded, accepted.notes))
    }

    /// What would change with another manifest, and nothing more; what that does to each pair says the mesh.
    pub fn plan(&self, file: &Path, mesh: &Mesh, now: Now) -> Result<Value, Rejected> {
        let (loaded, accepted) = self.read(file, self.rehearsal.as_deref(), now.unix)?;
        Ok(json!({
            "changes": crate::commands::plan::changes(&self.plan, &loaded.plan),
            "pairs": mesh.radius(now, &loaded),
            "notes": accepted.notes,
        }))
    }

    fn read(
        &self,
        file: &Path,
        rehearsal: Option<&Path>,
        unix_now: u64,
    ) -> Result<(Loaded, Accepted), Rejected> {
        let ended = Ended::InForce(&self.leaf);
        let mut accepted = load_with(file, &*self.provider, unix_now, rehearsal, ended)?;
        let address = accepted.choose_address(Some(self.address), &[])?;
        accepted.bundle.own = self.own_addresses();
        Ok((accepted.for_host(address, &accepted.bundle.own)?, accepted))
    }

    /// Keys of all live SAs, as lines of Wireshark's tables. Of those that were taken over only the data plane has the
    /// keys.
    pub fn keys(&self, mesh: &Mesh, in_data_plane: Vec<Sa>) -> Answer {
        let mut sas = mesh.export_sas();
        let known: BTreeSet<_> = sas.iter().map(|sa| (sa.key(), sa.direction)).collect();
        sas.extend(
            in_data_plane.into_iter().filter(|sa| !known.contains(&(sa.key(), sa.direction))),
        );
        let tables = wireshark::tables(&mesh.export_all_keys(), &sas);
        serde_json::to_value(tables).map_err(Refused::because)
    }
}

/// All addresses of this host but those that no other host can reach. The data plane's device
/// may carry some of them a second time.
pub fn own_addresses() -> Vec<IpAddr> {
    let addresses =
        linux::route::Rtnl::open().and_then(|mut rtnl| rtnl.addresses()).unwrap_or_default();
    let reachable = |address: &IpAddr| !address.is_loopback() && !is_link_local(*address);
    let mut own = Vec::new();
    for address in addresses.iter().map(|address| address.net.addr()).filter(reachable) {
        if !own.contains(&address) {
            own.push(address);
        }
    }
    own
}

/// Addresses on the host's own interfaces, those on the loopback device last: a router may know the way to them, or none.
/// Those of `device`, which is the data plane's, are no places.
fn places(device: Option<&str>) -> Vec<IpAddr> {
    let Ok(mut rtnl) = linux::route::Rtnl::open() else { return Vec::new() };
    let (links, addresses) =
        (rtnl.links().unwrap_or_default(), rtnl.addresses().unwrap_or_default());
    let usable = |a: &&linux::route::Address| !a.is_tentative() && !a.net.addr().is_loopback();
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for address in addresses.iter().filter(usable) {
        match links.iter().find(|link| link.index == address.interface) {
            Some(link) if Some(link.name.as_str()) == device => {}
            Some(link) if link.is_loopback() => last.push(address.net.addr()),
            _ => first.push(address.net.addr()),
        }
    }
    last.retain(|address| !first.contains(address));
    first.extend(last);
    first
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
