//! Rules: which table is asked for which packets.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::libc;

use super::{Error, Rtnl, address, family, octets};
use crate::netlink::{Attributes, Body, CREATE, text, u32_at};
use crate::raw::Ip;

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleAction {
    /// Asks a table.
    Table(u32),
    /// Drops silently.
    Blackhole,
    /// Goes on with the rules from this priority on; if there is none of exactly this one, with the next rule.
    Goto(u32),
    /// Goes on with the next rule.
    Nothing,
    /// Another one, by its number (`FR_ACT_*`).
    Other(u8),
}

/// A rule of one IP version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// IP version.
    pub ip: Ip,
    /// Rules are asked in ascending order; the local table is at 0, the main table at 32766.
    pub priority: u32,
    /// For packets from there.
    pub src: Option<IpNet>,
    /// For packets to there.
    pub dst: Option<IpNet>,
    /// For packets that came by this interface.
    pub iif: Option<String>,
    /// For packets whose firewall mark has this value under this mask.
    pub mark: Option<(u32, u32)>,
    /// For all packets but those described.
    pub invert: bool,
    /// What it does.
    pub action: RuleAction,
    /// Who made it (`RTPROT_*`), 0 if nobody says.
    pub protocol: u8,
}

impl Rule {
    /// `not fwmark MARK lookup TABLE`.
    pub fn unmarked(ip: Ip, priority: u32, mark: u32, table: u32) -> Self {
        let action = RuleAction::Table(table);
        Self {
            ip,
            priority,
            src: None,
            dst: None,
            iif: None,
            mark: Some((mark, u32::MAX)),
            invert: true,
            action,
            protocol: 0,
        }
    }
}

impl Rtnl {
    /// All rules, IPv4 and IPv6.
    pub fn rules(&mut self) -> Result<Vec<Rule>, Error> {
        let messages = self.dump("list rules", GETRULE, &[0; HEADER])?;
        Ok(messages.iter().filter_map(|m| decode(&m.body)).collect())
    }

    /// Adds a rule; the same one twice is an error.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<(), Error> {
        self.change(|| describe("add", rule), NEWRULE, CREATE, body(rule).bytes())
    }

    /// Takes one rule away that is described so; absent is success.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<(), Error> {
        self.remove(|| describe("delete", rule), DELRULE, body(rule).bytes())
    }
}

// Numbers and layouts: linux/fib_rules.h.
const NEWRULE: u16 = 32;
const DELRULE: u16 = 33;
const GETRULE: u16 = 34;
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_GOTO: u16 = 4;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_GOTO: u8 = 2;
const FR_ACT_NOP: u8 = 3;
const FR_ACT_BLACKHOLE: u8 = 6;
const FIB_RULE_INVERT: u32 = 2;
const RT_TABLE_COMPAT: u8 = 252;
const HEADER: usize = 12;

fn describe(verb: &str, rule: &Rule) -> String {
    format!("{verb} {:?} rule of priority {}", rule.ip, rule.priority)
}

fn body(rule: &Rule) -> Body {
    let mut header = [0; HEADER];
    header[0] = family(rule.ip);
    header[1] = rule.dst.map_or(0, |net| net.prefix_len());
    header[2] = rule.src.map_or(0, |net| net.prefix_len());
    let table = match rule.action {
        RuleAction::Table(table) => table,
        _ => 0,
    };
    header[4] = u8::try_from(table).unwrap_or(RT_TABLE_COMPAT);
    header[7] = match rule.action {
        RuleAction::Table(_) => FR_ACT_TO_TBL,
        RuleAction::Blackhole => FR_ACT_BLACKHOLE,
        RuleAction::Goto(_) => FR_ACT_GOTO,
        RuleAction::Nothing => FR_ACT_NOP,
        RuleAction::Other(number) => number,
    };
    header[8..12].copy_from_slice(&(if rule.invert { FIB_RULE_INVERT } else { 0 }).to_ne_bytes());
    let mut body = Body::new(&header).u32(FRA_PRIORITY, rule.priority).u32(FRA_TABLE, table);
    if let Some(net) = rule.dst {
        body = body.attr(FRA_DST, &octets(net.network()));
    }
    if let Some(net) = rule.src {
        body = body.attr(FRA_SRC, &octets(net.network()));
    }
    if let Some(name) = &rule.iif {
        body = body.str(FRA_IIFNAME, name);
    }
    if let RuleAction::Goto(target) = rule.action {
        body = body.u32(FRA_GOTO, target);
    }
    if rule.protocol != 0 {
        body = body.attr(FRA_PROTOCOL, &[rule.protocol]);
    }
    if let Some((mark, mask)) = rule.mark {
        body = body.u32(FRA_FWMARK, mark).u32(FRA_FWMASK, mask);
    }
    body
}

fn decode(body: &[u8]) -> Option<Rule> {
    let attributes = body.get(HEADER..)?;
    let ip = match i32::from(body[0]) {
        libc::AF_INET => Ip::V4,
        libc::AF_INET6 => Ip::V6,
        _ => return None,
    };
    let (mut priority, mut table, mut mark, mut mask) = (0, u32::from(body[4]), None, u32::MAX);
    let (mut src, mut dst, mut iif) = (None, None, None);
    let (mut target, mut protocol) = (0, 0);
    let net = |address: Option<IpAddr>, len| address.and_then(|a| IpNet::new(a, len).ok());
    for (kind, value) in Attributes::new(attributes) {
        match kind {
            FRA_PRIORITY => priority = u32_at(value, 0)?,
            FRA_TABLE => table = u32_at(value, 0)?,
            FRA_FWMARK => mark = u32_at(value, 0),
            FRA_FWMASK => mask = u32_at(value, 0)?,
            FRA_DST => dst = net(address(value), body[1]),
            FRA_SRC => src = net(address(value), body[2]),
            FRA_GOTO => target = u32_at(value, 0)?,
            FRA_PROTOCOL => protocol = *value.first()?,
            FRA_IIFNAME => iif = Some(text(value)),
            _ => {}
        }
    }
    let action = match body[7] {
        FR_ACT_TO_TBL => RuleAction::Table(table),
        FR_ACT_BLACKHOLE => RuleAction::Blackhole,
        FR_ACT_GOTO => RuleAction::Goto(target),
        FR_ACT_NOP => RuleAction::Nothing,
        other => RuleAction::Other(other),
    };
    let invert = u32_at(body, 8)? & FIB_RULE_INVERT != 0;
    let mark = mark.map(|mark| (mark, mask));
    Some(Rule { ip, priority, src, dst, iif, mark, invert, action, protocol })
}
