//! Finds the servers that a failover may promote in place of a primary.

use std::collections::BTreeSet;

use redis::{Value, cmd};

use crate::config::Host;

use super::super::fault_injector::GuardedConnection;
use super::super::reply;
use super::sentinel::{self, Sentinels};

/// The source of the candidates.
pub(super) enum FailoverCandidates {
    /// The configured hosts. All of them are candidates, in addition to the replicas of the primary.
    Hosts(Vec<Host>),
    Sentinels(Sentinels),
    /// The cluster nodes.
    Cluster,
}

/// Servers that a failover may promote, reachable or not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Successors {
    /// Servers that may be promoted. A revocation is durable only if each of them is attached and has
    /// confirmed it.
    pub(in super::super) certain: BTreeSet<Host>,
    /// Servers that are never promoted, though they may be replicas of the primary.
    pub(in super::super) never: BTreeSet<Host>,
}

/// Why the candidates are unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Unknown {
    Sentinels,
    /// A sentinel knows of more replicas than it lists.
    Unannounced,
    /// The cluster node gave no usable reply.
    Nodes,
}

impl FailoverCandidates {
    /// The candidates to replace `primary`. `wire` is a connection to it.
    pub(super) async fn of(&self, primary: &Host, wire: GuardedConnection) -> Result<Successors, Unknown> {
        match self {
            FailoverCandidates::Hosts(hosts) => {
                let certain = hosts.iter().filter(|host| *host != primary).cloned().collect();
                Ok(Successors { certain, ..Successors::default() })
            }
            FailoverCandidates::Sentinels(sentinels) => sentinel::successors(sentinels).await,
            FailoverCandidates::Cluster => nodes(wire).await.ok_or(Unknown::Nodes),
        }
    }
}

async fn nodes(mut wire: GuardedConnection) -> Option<Successors> {
    let mut question = cmd("CLUSTER");
    question.arg("NODES");
    let answer = reply::checked(wire.send_packed_command(&question).await).ok()?;
    replicas_of_myself(reply::text(&answer)?)
}

/// Decodes `CLUSTER NODES`: `<id> <ip:port@cport[,hostname]> <flags> <primary's id> …` for each node. Returns
/// the replicas of the node that replied.
fn replicas_of_myself(nodes: &str) -> Option<Successors> {
    let lines: Vec<Vec<&str>> = nodes.lines().map(|line| line.split(' ').collect()).collect();
    let is = |flags: &str, flag: &str| flags.split(',').any(|one| one == flag);
    let myself = lines.iter().find(|line| line.get(2).is_some_and(|flags| is(flags, "myself")))?.first()?;
    let mut successors = Successors::default();
    for line in &lines {
        let [_, place, flags, primary, ..] = line.as_slice() else { return None };
        if primary != myself {
            continue;
        }
        let host = Host::parse(place.split(['@', ',']).next()?)?;
        match is(flags, "nofailover") {
            true => successors.never.insert(host),
            false => successors.certain.insert(host),
        };
    }
    Some(successors)
}

/// The replicas in a primary's reply to `ROLE`: `[ip, port, offset]` each.
pub(super) fn replicas(role: &Value) -> Vec<Host> {
    let Some([_, _, Value::Array(replicas)]) = role.as_sequence() else { return Vec::new() };
    let host = |replica: &Value| {
        let [name, port, ..] = replica.as_sequence()? else { return None };
        Some(Host { name: reply::text(name)?.to_owned(), port: reply::text(port)?.parse().ok()? })
    };
    replicas.iter().filter_map(host).collect()
}

/// A replica as listed by `INFO replication` of its primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Replica {
    pub(in super::super) host: Host,
    /// The replication offset that it has acknowledged; `None` unless its state is `online`, as during the
    /// initial copy.
    pub(in super::super) offset: Option<u64>,
}

/// Decodes `INFO replication` of a primary: its replication offset, and its replicas in any state. `None` if
/// the reply is malformed or the server is no primary.
pub(in super::super) fn replication(info: &Value) -> Option<(u64, Vec<Replica>)> {
    let info = reply::text(info)?;
    let mut lines = info.lines().filter_map(|line| line.trim_end().split_once(':'));
    let own = lines.clone().find(|(name, _)| *name == "master_repl_offset")?.1.parse().ok()?;
    let is_replica = |name: &str| {
        name.strip_prefix("slave")
            .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()) && !rest.is_empty())
    };
    lines.clone().find(|(name, value)| *name == "role" && *value == "master")?;
    let replicas = lines.by_ref().filter(|(name, _)| is_replica(name)).map(|(_, about)| replica(about));
    Some((own, replicas.collect::<Option<_>>()?))
}

/// Decodes `ip=…,port=…,state=…,offset=…,lag=…`.
fn replica(about: &str) -> Option<Replica> {
    let value = |wanted: &str| {
        about
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| *name == wanted)
            .map(|(_, v)| v)
    };
    let host = Host { name: value("ip")?.to_owned(), port: value("port")?.parse().ok()? };
    let offset = if value("state")? == "online" { value("offset")?.parse().ok() } else { None };
    Some(Replica { host, offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(port: u16) -> Host {
        Host { name: "127.0.0.1".to_owned(), port }
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn replicas_are_known_in_whatever_state() {
        let info = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
            slave0:ip=127.0.0.1,port=1,state=online,offset=56,lag=0\r\n\
            slave1:ip=127.0.0.1,port=2,state=wait_bgsave,offset=0,lag=0\r\n\
            slave_expires_tracked_keys:0\r\nmaster_replid:ab\r\nmaster_repl_offset:70\r\n";
        let replicas =
            vec![Replica { host: host(1), offset: Some(56) }, Replica { host: host(2), offset: None }];
        assert_eq!(replication(&bulk(info)), Some((70, replicas)));
        assert_eq!(replication(&bulk(&info.replace("role:master", "role:slave"))), None);
        assert_eq!(replication(&bulk("role:master\r\n")), None);
        assert_eq!(replication(&Value::Nil), None);
    }

    #[test]
    fn the_replicas_of_a_primary_are_known_by_their_addresses() {
        let role = "*3 $6 master :5 *2 *3 $1 h $1 1 $1 5 *3 $1 h $1 x $1 5 ";
        let role = redis::parse_redis_value(role.replace(' ', "\r\n").as_bytes()).unwrap();
        assert_eq!(replicas(&role), [Host { name: "h".to_owned(), port: 1 }]);
        assert_eq!(replicas(&Value::Nil), []);
    }

    #[test]
    fn in_a_cluster_the_replicas_of_a_node_are_those_that_name_it() {
        let nodes = "aa 127.0.0.1:1@10001,name myself,master - 0 1 1 connected 0-5\n\
            bb 127.0.0.1:2@10002 slave aa 0 1 1 connected\n\
            cc 127.0.0.1:3@10003 slave,fail aa 1 1 1 disconnected\n\
            dd 127.0.0.1:4@10004 slave,nofailover aa 0 1 1 connected\n\
            ee 127.0.0.1:5@10005 slave ff 0 1 1 connected\n\
            ff 127.0.0.1:6@10006 master - 0 1 2 connected 6-9\n";
        let expected = Successors { certain: [host(2), host(3)].into(), never: [host(4)].into() };
        assert_eq!(replicas_of_myself(nodes), Some(expected));
        assert_eq!(replicas_of_myself(&nodes.replace("myself,", "")), None);
        assert_eq!(replicas_of_myself(&nodes.replace("127.0.0.1:3@10003", "?")), None);
    }
}
