//! iptables: what `iptables-save` and `ip6tables-save` print.

use super::rules::{Hook, Rule, Table, Test, Verdict};

/// The tables `raw`, `mangle` and `filter`.
pub fn read(text: &str, version: u8) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            let name = format!("ip{}tables {name}", if version == 6 { "6" } else { "" });
            tables.push(Table { name, ..Table::default() });
        }
        let Some(table) = tables.last_mut().filter(|table| !table.name.ends_with(" nat")) else {
            continue;
        };
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_whitespace();
            let (name, policy) = (words.next().unwrap_or_default(), words.next());
            let chain = table.chains.entry(name.to_owned()).or_default();
            chain.hook = hook(name);
            chain.drops_by_default = policy == Some("DROP");
        } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|l| l.split_once(' '))
        {
            let rule = read_rule(rule, line);
            table.chains.entry(chain.to_owned()).or_default().rules.push(rule);
        }
    }
    tables
}

fn hook(chain: &str) -> Option<Hook> {
    match chain {
        "PREROUTING" | "INPUT" => Some(Hook::In),
        "OUTPUT" | "POSTROUTING" => Some(Hook::Out),
        _ => None,
    }
}

fn read_rule(rule: &str, line: &str) -> Rule {
    let mut words = rule.split_whitespace().peekable();
    let (mut tests, mut verdict, mut inverted) = (Vec::new(), Verdict::Continue, false);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_default();
        let test = match word {
            "!" => {
                inverted = true;
                continue;
            }
            // What a match asks follows in options of its own; a match without any is not understood.
            "-m" | "--match" => match value() {
                "udp" | "tcp" | "multiport" | "conntrack" | "state" | "esp" => continue,
                "comment" => {
                    skip_comment(&mut words);
                    continue;
                }
                _ => Some(Test::Unknown),
            },
            "-p" | "--protocol" => match value() {
                "all" => continue,
                name => super::protocol(name).map(|p| Test::Protocol(vec![p])),
            },
            "--dport" | "--sport" | "--dports" | "--sports" | "--ports" => {
                value().split(',').map(range).collect::<Option<_>>().map(Test::Port)
            }
            "-i" | "--in-interface" => Some(Test::Interface(true, value().to_owned())),
            "-o" | "--out-interface" => Some(Test::Interface(false, value().to_owned())),
            "--ctstate" | "--state" => {
                Some(Test::New(value().split(',').any(|state| state == "NEW")))
            }
            "-j" | "--jump" => {
                verdict = target(value());
                continue;
            }
            "-g" | "--goto" => {
                verdict = Verdict::Goto(value().to_owned());
                continue;
            }
            // Options of targets, and of matches that have made the rule unknown already.
            "--reject-with" | "--log-prefix" | "--log-level" => {
                value();
                continue;
            }
            "-s" | "--source" => net(value()).map(|net| Test::Address(true, net)),
            "-d" | "--destination" => net(value()).map(|net| Test::Address(false, net)),
            _ => Some(Test::Unknown),
        };
        tests.push((test.unwrap_or(Test::Unknown), std::mem::take(&mut inverted)));
    }
    Rule { tests, verdict, shown: line.to_owned() }
}

fn skip_comment<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) {
    words.next();
    let Some(first) = words.next() else { return };
    let closed = |word: &str, alone: bool| word.ends_with('"') && (!alone || word.len() > 1);
    if first.starts_with('"') && !closed(first, true) {
        while words.next().is_some_and(|word| !closed(word, false)) {}
    }
}

fn target(name: &str) -> Verdict {
    match name {
        "ACCEPT" => Verdict::Accept,
        "DROP" | "REJECT" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        // Targets that let the packet go on have names in capitals, and so may chains: one that is none ends at once.
        chain => Verdict::Jump(chain.to_owned()),
    }
}

fn net(text: &str) -> Option<ipnet::IpNet> {
    let host = || text.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from);
    text.parse().ok().or_else(host)
}

fn range(text: &str) -> Option<(u16, u16)> {
    match text.split_once(':') {
        Some((first, last)) => Some((super::port(first)?, super::port(last)?)),
        None => super::port(text).map(|port| (port, port)),
    }
}
