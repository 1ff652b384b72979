//! Requests to the kernel, one function each.

use std::net::IpAddr;

use ipsec::sa::SaKey;
use zerocopy::IntoBytes;
use zeroize::Zeroizing;

use super::encode::{self, SecretBody};
use super::policy::{Direction, Installed, Policy, Selector};
use super::state::State;
use super::uapi::{DefaultInfo, PolicyId, msg, read};
use super::{Error, POLICY_INDEXES, decode};
use crate::errno::Errno;
use crate::netlink::{Family, Socket};
use crate::userspace::MARK;

/// A connection to the kernel's policies and SAs in one network namespace.
#[derive(Debug)]
pub struct Xfrm {
    socket: Socket,
}

/// What happens to packets that no policy is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DefaultAction {
    /// They pass in the clear: what every kernel does unless it is told otherwise.
    Accept,
    /// They are dropped.
    Block,
}

/// The default for each direction (`XFRM_MSG_SETDEFAULT`, Linux 5.15). It is not a policy: flushing those leaves it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Defaults {
    /// Delivered to this host.
    pub input: DefaultAction,
    /// Forwarded.
    pub forward: DefaultAction,
    /// Sent by this host.
    pub output: DefaultAction,
}

impl Xfrm {
    /// Opens it in this thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Family::Xfrm)? })
    }

    /// Installs a policy, in place of one with the same direction, selector and mark. The kernel chooses its index.
    pub fn put_policy(&mut self, policy: &Policy) -> Result<(), Error> {
        self.replace_policy(policy, 0)
    }

    /// Takes the policy of this direction, selector and mark away; absent is success.
    pub fn remove_policy(&mut self, policy: &Policy) -> Result<(), Error> {
        self.delete_policy(encode::policy_name(policy).bytes())
    }

    /// All policies, foreign ones included, but for those of sockets.
    pub fn policies(&mut self) -> Result<Vec<Policy>, Error> {
        Ok(self.installed()?.into_iter().map(|installed| installed.policy).collect())
    }

    /// Policies that are neither the data plane's nor the guard's.
    pub fn foreign_policies(&mut self) -> Result<Vec<Policy>, Error> {
        let mut all = self.installed()?;
        all.retain(|there| {
            let guard = there.policy.mark == (0, MARK) && there.policy.templates.is_empty();
            !guard && !POLICY_INDEXES.contains(&there.index)
        });
        Ok(all.into_iter().map(|there| there.policy).collect())
    }

    /// Takes all SAs away, other people's included: for rehearsals in a namespace of their own.
    pub fn flush_sas(&mut self) -> Result<(), Error> {
        // struct xfrm_usersa_flush: protocol 0 is all of them.
        Ok(self.socket.request(msg::FLUSHSA, 0, &[0; 4])?)
    }

    /// Takes all policies away, other people's included: for rehearsals in a namespace of their own.
    pub fn flush_policies(&mut self) -> Result<(), Error> {
        match self.socket.request(msg::FLUSHPOLICY, 0, &[]) {
            // There were none.
            Err(error) if error.errno() == Some(Errno::ESRCH) => Ok(()),
            other => Ok(other?),
        }
    }

    /// What happens to packets that no policy is for.
    pub fn defaults(&mut self) -> Result<Defaults, Error> {
        let answer = self.socket.get(msg::GETDEFAULT, DefaultInfo::default().as_bytes())?;
        // Three bytes; whatever follows is padding.
        let mut raw = [0; 4];
        raw.iter_mut().zip(answer.body.iter().take(3)).for_each(|(to, from)| *to = *from);
        let info: DefaultInfo = read(&raw).unwrap_or_default();
        let action = |byte| if byte == 1 { DefaultAction::Block } else { DefaultAction::Accept };
        let (input, forward, output) = (action(info.input), action(info.fwd), action(info.out));
        Ok(Defaults { input, forward, output })
    }

    /// Changes that.
    pub fn set_defaults(&mut self, defaults: Defaults) -> Result<(), Error> {
        let byte = |action| match action {
            DefaultAction::Block => 1,
            DefaultAction::Accept => 2,
        };
        let Defaults { input, forward, output } = defaults;
        let info =
            DefaultInfo { input: byte(input), fwd: byte(forward), out: byte(output), pad: 0 };
        Ok(self.socket.request(msg::SETDEFAULT, 0, info.as_bytes())?)
    }

    /// Installs a policy under this index; `EEXIST` if there is one of the same direction and selector.
    pub(crate) fn add_policy(&mut self, policy: &Policy, index: u32) -> Result<(), Error> {
        let body = encode::policy(policy, index);
        Ok(self.socket.request(msg::NEWPOLICY, 0, body.bytes())?)
    }

    /// Installs a policy, or replaces the one of the same direction and selector, which keeps its index.
    pub(crate) fn replace_policy(&mut self, policy: &Policy, index: u32) -> Result<(), Error> {
        let body = encode::policy(policy, index);
        Ok(self.socket.request(msg::UPDPOLICY, 0, body.bytes())?)
    }

    /// Takes the policy of this index away; absent is success.
    pub(crate) fn remove_index(&mut self, index: u32) -> Result<(), Error> {
        self.delete_policy(encode::policy_index(index).as_bytes())
    }

    /// The policy of this direction and selector.
    pub(crate) fn policy(
        &mut self,
        direction: Direction,
        selector: &Selector,
    ) -> Result<Option<Installed>, Error> {
        let id = encode::policy_id(direction, selector);
        match self.socket.get(msg::GETPOLICY, id.as_bytes()) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            other => Ok(decode::policy(&other?.body)),
        }
    }

    /// All policies with their indexes.
    pub(crate) fn installed(&mut self) -> Result<Vec<Installed>, Error> {
        let messages = self.socket.dump(msg::GETPOLICY, PolicyId::default().as_bytes())?;
        Ok(messages.iter().filter_map(|m| decode::policy(&m.body)).collect())
    }

    /// Installs an SA; `EEXIST` if there is one of the same destination and SPI.
    pub(crate) fn add_sa(&mut self, sa: &SecretBody) -> Result<(), Error> {
        Ok(self.socket.request(msg::NEWSA, 0, sa.bytes())?)
    }

    /// Changes limits and ports of an SA.
    pub(crate) fn update_sa(&mut self, sa: &SecretBody) -> Result<(), Error> {
        Ok(self.socket.request(msg::UPDSA, 0, sa.bytes())?)
    }

    /// Takes an SA away; absent is success.
    pub fn remove_sa(&mut self, key: SaKey) -> Result<(), Error> {
        match self.socket.request(msg::DELSA, 0, encode::sa_id(key).as_bytes()) {
            Err(error) if error.errno() == Some(Errno::ESRCH) => Ok(()),
            other => Ok(other?),
        }
    }

    /// An SA as the kernel has it, with its keys.
    pub(crate) fn sa(&mut self, key: SaKey) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        match self.socket.get(msg::GETSA, encode::sa_id(key).as_bytes()) {
            Err(error) if error.errno() == Some(Errno::ESRCH) => Ok(None),
            other => Ok(Some(Zeroizing::new(other?.body))),
        }
    }

    /// All ESP SAs, or those to one address; foreign ones and larval ones included.
    pub(crate) fn states(&mut self, dst: Option<IpAddr>) -> Result<Vec<State>, Error> {
        let mut states = Vec::new();
        self.socket.each(msg::GETSA, encode::sa_filter(dst).bytes(), |_, body| {
            states.extend(decode::state(body));
        })?;
        Ok(states)
    }

    /// Takes away the place of an SA that was asked for: the next packet asks again.
    pub(crate) fn remove_larval(&mut self, larval: &State, spi: u32) -> Result<(), Error> {
        let mut key = larval.key;
        key.spi = wire::esp::Spi(spi);
        self.socket.get(msg::ALLOCSPI, encode::alloc_spi(larval, spi).as_bytes())?;
        self.remove_sa(key)
    }

    fn delete_policy(&mut self, id: &[u8]) -> Result<(), Error> {
        match self.socket.request(msg::DELPOLICY, 0, id) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
            other => Ok(other?),
        }
    }
}
