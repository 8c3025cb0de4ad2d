//! A Redis Cluster of three masters, each with a replica, all of our own.

use redis::FromRedisValue;

use super::redis::{Redis, patient};
use super::redis_sentinel::until;

/// Slots of the masters, in equal parts.
const RANGES: [(u16, u16); 3] = [(0, 5460), (5461, 10_922), (10_923, 16_383)];

/// Six processes; dropping this ends them.
pub(crate) struct Cluster {
    /// Three masters, then the replica of each.
    pub(crate) nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts all of them and waits until every node knows all. A master is down when it has not answered for a
    /// second.
    pub(crate) async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            nodes.push(Redis::start_in_cluster().await);
        }
        let cluster = Self { nodes };
        for (node, (first, last)) in cluster.nodes.iter().zip(RANGES) {
            let () = node.command("CLUSTER", ("ADDSLOTSRANGE", first, last)).await;
        }
        for (epoch, node) in cluster.nodes.iter().enumerate() {
            let () = node.command("CLUSTER", ("SET-CONFIG-EPOCH", epoch + 1)).await;
            cluster.meet(node).await;
        }
        for (index, replica) in cluster.nodes.iter().enumerate().skip(3) {
            let id: String = cluster.nodes[index - 3].command("CLUSTER", "MYID").await;
            until("the master to be known", async || {
                replica.command::<String>("CLUSTER", "NODES").await.contains(&id)
            })
            .await;
            let () = replica.command("CLUSTER", ("REPLICATE", id)).await;
        }
        for node in &cluster.nodes {
            until("the cluster", async || {
                let nodes: String = node.command("CLUSTER", "NODES").await;
                let info: String = node.command("CLUSTER", "INFO").await;
                let replicas =
                    nodes.lines().filter(|line| line.contains("slave") && line.ends_with("connected"));
                info.contains("cluster_state:ok") && replicas.count() == 3
            })
            .await;
        }
        for replica in &cluster.nodes[3..] {
            until("replication", async || {
                replica.command::<String>("INFO", "replication").await.contains("master_link_status:up")
            })
            .await;
        }
        cluster
    }

    /// Starts a further node, which has no slots.
    pub(crate) async fn grow(&mut self) -> &Redis {
        self.nodes.push(Redis::start_in_cluster().await);
        let (new, old) = self.nodes.split_last().unwrap();
        self.meet(new).await;
        let id = id(new).await;
        for node in old {
            until("the new node to be known", async || {
                let nodes: String = node.command("CLUSTER", "NODES").await;
                nodes.lines().any(|line| line.starts_with(&id) && !line.contains("handshake"))
            })
            .await;
        }
        until("the new node to be ready", async || {
            new.command::<String>("CLUSTER", "INFO").await.contains("cluster_state:ok")
        })
        .await;
        new
    }

    async fn meet(&self, node: &Redis) {
        let first = self.nodes[0].address();
        let bus = first.port() + 10_000;
        let () = node.command("CLUSTER", ("MEET", first.ip().to_string(), first.port(), bus)).await;
    }

    /// `redis+cluster://…` with some of the nodes.
    pub(crate) fn url(&self) -> String {
        let seeds: Vec<_> = self.nodes[2..5].iter().map(|node| node.address().to_string()).collect();
        format!("redis+cluster://{}", seeds.join(","))
    }

    /// Runs a command about a key where the key is.
    pub(crate) async fn command<T: FromRedisValue>(&self, name: &str, key: &str, arguments: &[&str]) -> T {
        self.owner(key).await.command(name, [&[key], arguments].concat()).await
    }

    /// Writes a session under the default key and format.
    pub(crate) async fn put_session(&self, id: &str, fields: &[(&str, &str)]) {
        self.owner(&format!("session:{id}")).await.put_session(id, fields).await;
    }

    pub(crate) async fn slot(&self, key: &str) -> u16 {
        let live = self.live().await;
        live.command("CLUSTER", ("KEYSLOT", key)).await
    }

    /// A name whose key, after the prefix, is in this slot.
    pub(crate) async fn name_in(&self, slot: u16, prefix: &str) -> String {
        let client = redis::Client::open(self.nodes[0].url()).unwrap();
        let mut connection = patient(&client).await.unwrap();
        for batch in 0.. {
            let names: Vec<_> = (0..5000).map(|number| format!("n{batch}-{number}")).collect();
            let mut asked = redis::pipe();
            for name in &names {
                asked.cmd("CLUSTER").arg("KEYSLOT").arg(format!("{prefix}{name}"));
            }
            let slots: Vec<u16> = asked.query_async(&mut connection).await.unwrap();
            if let Some(found) = slots.iter().position(|other| *other == slot) {
                return names[found].clone();
            }
        }
        unreachable!("names do not run out");
    }

    /// The node that owns the slot of a key.
    pub(crate) async fn owner(&self, key: &str) -> &Redis {
        let slot = i64::from(self.slot(key).await);
        let ranges: Vec<(i64, i64, Vec<redis::Value>)> = owners(self.live().await).await;
        let (.., owner) = ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).unwrap();
        let port = u16::from_redis_value(owner[1].clone()).unwrap();
        self.nodes.iter().find(|node| node.address().port() == port).unwrap()
    }

    /// Begins to move a slot: keys that are not at `from` any more are to be asked for at `to`.
    pub(crate) async fn begin_move(slot: u16, from: &Redis, to: &Redis) {
        let (from_id, to_id) = (id(from).await, id(to).await);
        let () = to.command("CLUSTER", ("SETSLOT", slot, "IMPORTING", from_id)).await;
        let () = from.command("CLUSTER", ("SETSLOT", slot, "MIGRATING", to_id)).await;
    }

    /// Moves one key to the other side of a move that has begun.
    pub(crate) async fn move_key(key: &str, from: &Redis, to: &Redis) {
        let to = to.address();
        let () = from.command("MIGRATE", (to.ip().to_string(), to.port(), key, 0, 1000)).await;
    }

    /// Makes `to` the owner of the slot; `from` and the others will know.
    pub(crate) async fn end_move(slot: u16, from: &Redis, to: &Redis) {
        let id = id(to).await;
        for node in [to, from] {
            let () = node.command("CLUSTER", ("SETSLOT", slot, "NODE", &id)).await;
        }
    }

    /// A node that answers.
    async fn live(&self) -> &Redis {
        self.nodes.iter().find(|node| node.is_running()).unwrap()
    }
}

async fn id(node: &Redis) -> String {
    node.command("CLUSTER", "MYID").await
}

async fn owners(node: &Redis) -> Vec<(i64, i64, Vec<redis::Value>)> {
    let slots: Vec<Vec<redis::Value>> = node.command("CLUSTER", "SLOTS").await;
    let range = |entry: Vec<redis::Value>| {
        let mut parts = entry.into_iter();
        let mut next = || parts.next().unwrap();
        let (first, last) = (i64::from_redis_value(next()).unwrap(), i64::from_redis_value(next()).unwrap());
        (first, last, Vec::from_redis_value(next()).unwrap())
    };
    slots.into_iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_are_where_their_slots_are() {
        let cluster = Cluster::start().await;
        for key in ["a", "b", "c", "d"] {
            let () = cluster.command("SET", key, &["v"]).await;
            assert_eq!(cluster.command::<String>("GET", key, &[]).await, "v");
        }
    }
}
