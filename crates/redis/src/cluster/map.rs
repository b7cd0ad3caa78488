//! Which node serves which slots, in the words of `CLUSTER NODES`.

use std::collections::BTreeMap;

use super::slot::SLOTS;

/// No map has more nodes than this. Clusters are advised to have a thousand at most.
const MOST_NODES: usize = 4096;

/// Since which decision a node serves which slots.
type Serving<'a> = (u64, &'a [(u16, u16)]);

/// What one node knows of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotMap {
    pub(crate) nodes: Vec<Node>,
}

/// A node of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// 40 hexadecimal digits.
    pub(crate) id: String,
    /// Where clients reach it; empty where nobody has told it its own address yet.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// It is the one that was asked.
    pub(crate) asked: bool,
    /// It is down, or others think so, or its address is not known.
    pub(crate) broken: bool,
    /// The primary whose replica it is.
    pub(crate) replica_of: Option<String>,
    pub(crate) epoch: u64,
    /// From the first to the last of each range.
    pub(crate) slots: Vec<(u16, u16)>,
    /// Slots on their way to or from it. Only the node itself tells.
    pub(crate) moving: Vec<u16>,
}

impl Node {
    /// The node, for people.
    pub(crate) fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// A primary with slots, and its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) primary: Node,
    pub(crate) replicas: Vec<Node>,
}

impl Shard {
    /// The first of its slots, by which it is named.
    pub(crate) fn first(&self) -> u16 {
        self.primary.slots.first().map_or(0, |(first, _)| *first)
    }
}

impl SlotMap {
    /// Reads an answer to `CLUSTER NODES`. The error says what is wrong with it.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut nodes = Vec::new();
        for line in lines {
            if nodes.len() == MOST_NODES {
                return Err(format!("it names more than {MOST_NODES} nodes"));
            }
            let shown = &line[..line.floor_char_boundary(120)];
            nodes.push(node(line).ok_or_else(|| format!("\"{shown}\" names no node"))?);
        }
        Ok(Self { nodes })
    }

    /// The shards, by their first slot. The error says which slots nobody serves, or two do.
    pub(crate) fn shards(&self) -> Result<Vec<Shard>, String> {
        let mut shards = BTreeMap::new();
        let mut served = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| node.replica_of.is_none()) {
            for (first, last) in &node.slots {
                if served.insert(*first, *last).is_some() {
                    return Err(format!("slot {first} is served by two nodes"));
                }
            }
            if node.slots.is_empty() {
                continue;
            }
            let mine = |other: &&Node| other.replica_of.as_deref() == Some(&node.id);
            let replicas = self.nodes.iter().filter(mine).cloned().collect();
            let shard = Shard { primary: node.clone(), replicas };
            shards.insert(shard.first(), shard);
        }
        let mut next = 0;
        for (first, last) in served {
            if first > next {
                return Err(format!("nobody serves the slots {next} to {}", first - 1));
            }
            if first < next {
                return Err(format!("slot {first} is served by two nodes"));
            }
            next = last + 1;
        }
        match next {
            SLOTS => Ok(shards.into_values().collect()),
            _ => Err(format!("nobody serves the slots {next} to {}", SLOTS - 1)),
        }
    }

    /// Who serves what, and since which decision: the same in two maps when nothing was moved
    /// between them.
    pub(crate) fn shape(&self) -> BTreeMap<&str, Serving<'_>> {
        let serving = self.nodes.iter().filter(|node| !node.slots.is_empty());
        serving.map(|node| (node.id.as_str(), (node.epoch, &node.slots[..]))).collect()
    }

    /// Its nodes, as a snapshot remembers them.
    pub(crate) fn members(&self) -> String {
        let short = |node: &Node| node.id.get(..8).unwrap_or(&node.id).to_owned();
        let mut ids: Vec<_> = self.nodes.iter().map(short).collect();
        ids.sort_unstable();
        ids.join(" ")
    }

    /// The latest decision about who serves what.
    pub(crate) fn epoch(&self) -> u64 {
        self.nodes.iter().map(|node| node.epoch).max().unwrap_or(0)
    }

    /// The node that was asked.
    pub(crate) fn asked(&self) -> Option<&Node> {
        self.nodes.iter().find(|node| node.asked)
    }
}

/// `id ip:port@bus[,host[,…]] flags primary ping pong epoch link [slots…]`
fn node(line: &str) -> Option<Node> {
    let mut words = line.split(' ');
    let id = words.next()?.to_owned();
    if id.len() != 40 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut places = words.next()?.split(',');
    let (address, _) = places.next()?.split_once('@')?;
    let (ip, port) = address.rsplit_once(':')?;
    // A name goes before the address: it is what certificates hold.
    let name = places.next().filter(|name| !name.is_empty());
    let mut node = Node {
        id,
        host: name.unwrap_or(ip).to_owned(),
        port: port.parse().ok()?,
        asked: false,
        broken: false,
        replica_of: None,
        epoch: 0,
        slots: Vec::new(),
        moving: Vec::new(),
    };
    for flag in words.next()?.split(',') {
        match flag {
            "myself" => node.asked = true,
            "fail" | "fail?" | "handshake" | "noaddr" => node.broken = true,
            _ => {}
        }
    }
    node.replica_of = match words.next()? {
        "-" => None,
        primary => Some(primary.to_owned()),
    };
    let (_ping, _pong) = (words.next()?, words.next()?);
    node.epoch = words.next()?.parse().ok()?;
    let _link = words.next()?;
    for word in words {
        if let Some(moving) = word.strip_prefix('[') {
            // [slot->-to] and [slot-<-from]
            node.moving.push(slot(moving.split('-').next()?)?);
            continue;
        }
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let (first, last) = (slot(first)?, slot(last)?);
        if first > last {
            return None;
        }
        node.slots.push((first, last));
    }
    Some(node)
}

fn slot(digits: &str) -> Option<u16> {
    digits.parse().ok().filter(|slot| *slot < SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the documentation of `CLUSTER NODES`, shortened, with what resharding adds.
    const NODES: &str = "\
07c37dfeb235213a872192d90877d0cd55635b91 127.0.0.1:30004@31004,hostname4 slave e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 0 1426238317239 4 connected
67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1 127.0.0.1:30002@31002, master - 0 1426238316232 2 connected 5461-10922
292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f ::1:30003@31003 master,fail? - 0 1426238318243 3 connected 10923-16383
e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 127.0.0.1:30001@31001,hostname1 myself,master - 0 0 1 connected 0-77 78 79-5460 [77->-67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1]
";

    #[test]
    fn what_a_node_knows_is_read() {
        let map = SlotMap::parse(NODES.as_bytes()).unwrap();
        let shards = map.shards().unwrap();
        let first: Vec<_> = shards.iter().map(Shard::first).collect();
        assert_eq!(first, [0, 5461, 10923]);
        assert_eq!(shards[0].primary.address(), "hostname1:30001");
        assert_eq!(shards[0].primary.slots, [(0, 77), (78, 78), (79, 5460)]);
        assert_eq!(shards[0].primary.moving, [77]);
        assert_eq!(shards[0].replicas[0].address(), "hostname4:30004");
        assert_eq!(shards[1].primary.address(), "127.0.0.1:30002");
        assert_eq!(shards[2].primary.address(), "[::1]:30003");
        let broken: Vec<_> = shards.iter().map(|shard| shard.primary.broken).collect();
        assert_eq!(broken, [false, false, true]);
        assert_eq!((map.epoch(), map.asked().unwrap().port), (4, 30001));
    }

    #[test]
    fn a_slot_that_nobody_serves_or_two_do_is_named() {
        let of = |from: &str, to: &str| {
            SlotMap::parse(NODES.replace(from, to).as_bytes()).unwrap().shards().unwrap_err()
        };
        assert_eq!(of(" 78 ", " "), "nobody serves the slots 78 to 78");
        assert_eq!(of("0-77", "1-77"), "nobody serves the slots 0 to 0");
        assert_eq!(of("10923-16383", "10923-16000"), "nobody serves the slots 16001 to 16383");
        assert_eq!(of("5461-10922", "5460-10922"), "slot 5460 is served by two nodes");
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let good = NODES.lines().next().unwrap();
        for bad in [
            "x".to_owned(),
            good.replace("07c3", "zzzz"),
            good.replace("@31004", ""),
            good.replace(":30004", ":70000"),
            format!("{good} 16384"),
            format!("{good} 9-3"),
            [good; MOST_NODES + 1].join("\n"),
        ] {
            assert!(SlotMap::parse(bad.as_bytes()).is_err(), "{}", &bad[..60.min(bad.len())]);
        }
    }

    #[test]
    fn the_shape_says_whether_anything_moved() {
        let map = SlotMap::parse(NODES.as_bytes()).unwrap();
        let shape = |text: String| SlotMap::parse(text.as_bytes()).unwrap();
        let elsewhere = shape(NODES.replace("myself,", "").replace(" 0 1426238317239", " 0 1"));
        assert_eq!(map.shape(), elsewhere.shape());
        assert_ne!(map.shape(), shape(NODES.replace("316232 2 ", "316232 9 ")).shape());
        assert_ne!(map.shape(), shape(NODES.replace(" 78 ", " ")).shape());
    }
}
