//! A DNS server on loopback that answers what the test tells it to.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::SRV;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::within;

/// How questions are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// From the table; a name that is not in it does not exist.
    Good,
    /// Likewise, but datagrams only say that the answer is too long for them.
    Truncated,
    /// With this code and nothing else.
    Code(ResponseCode),
    /// Not at all.
    Silence,
    /// With bytes that are no message.
    Garbage,
}

#[derive(Debug)]
struct Script {
    manner: Manner,
    /// Exceptions for some kinds of questions.
    manners: BTreeMap<RecordType, Manner>,
    /// With every answer.
    along: Vec<Record>,
    table: BTreeMap<(Name, RecordType), Vec<Record>>,
}

/// The server; dropping it ends it.
#[derive(Debug)]
pub(crate) struct DnsServer {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    /// When questions came.
    asked: Arc<watch::Sender<Vec<(Instant, RecordType)>>>,
    _tasks: JoinSet<()>,
}

impl DnsServer {
    pub(crate) async fn start() -> Self {
        let (udp, tcp) = sockets().await;
        let address = udp.local_addr().unwrap();
        let script = Script {
            manner: Manner::Good,
            manners: BTreeMap::new(),
            along: Vec::new(),
            table: BTreeMap::new(),
        };
        let (script, asked) = (Arc::new(Mutex::new(script)), Arc::new(watch::Sender::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, script.clone(), asked.clone()));
        tasks.spawn(serve_tcp(tcp, script.clone(), asked.clone()));
        Self { address, script, asked, _tasks: tasks }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on `name` has exactly these addresses.
    pub(crate) fn set_addresses(&self, name: &str, ttl: u32, addresses: &[IpAddr]) {
        let name = Name::from_ascii(name).unwrap();
        let records =
            addresses.iter().map(|address| Record::from_rdata(name.clone(), ttl, (*address).into()));
        let (four, six) = records.partition(|record: &Record| record.record_type() == RecordType::A);
        let mut script = self.script.lock().unwrap();
        script.table.insert((name.clone(), RecordType::A), four);
        script.table.insert((name, RecordType::AAAA), six);
    }

    /// From now on `name` has exactly these services: priority, weight, port and target.
    pub(crate) fn set_services(&self, name: &str, ttl: u32, services: &[(u16, u16, u16, &str)]) {
        let name = Name::from_ascii(name).unwrap();
        let record = |(priority, weight, port, target): &(u16, u16, u16, &str)| {
            let target = Name::from_ascii(target).unwrap();
            Record::from_rdata(name.clone(), ttl, RData::SRV(SRV::new(*priority, *weight, *port, target)))
        };
        let records = services.iter().map(record).collect();
        self.script.lock().unwrap().table.insert((name.clone(), RecordType::SRV), records);
    }

    /// Sends this address of `name` along with every answer.
    pub(crate) fn send_along(&self, name: &str, ttl: u32, address: IpAddr) {
        let record = Record::from_rdata(Name::from_ascii(name).unwrap(), ttl, address.into());
        self.script.lock().unwrap().along.push(record);
    }

    /// From now on questions are answered in this manner.
    pub(crate) fn answer(&self, manner: Manner) {
        self.script.lock().unwrap().manner = manner;
    }

    /// From now on questions of this kind are answered in a manner of their own.
    pub(crate) fn answer_kind(&self, kind: RecordType, manner: Manner) {
        self.script.lock().unwrap().manners.insert(kind, manner);
    }

    /// How many questions came so far.
    pub(crate) fn questions(&self) -> usize {
        self.asked.borrow().len()
    }

    /// Waits for further questions of this kind and tells when they came.
    pub(crate) async fn next_questions(&self, kind: RecordType, count: usize) -> Vec<Instant> {
        let before = self.questions();
        let times = |asked: &[(Instant, RecordType)]| -> Vec<Instant> {
            asked.iter().skip(before).filter(|(_, of)| *of == kind).map(|(at, _)| *at).collect()
        };
        let mut asked = self.asked.subscribe();
        let enough = asked.wait_for(|asked| times(asked).len() >= count);
        let asked = within("a question", enough).await.unwrap().clone();
        times(&asked)
    }
}

/// Sockets for datagrams and for connections on the same port.
async fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

type Asked = Arc<watch::Sender<Vec<(Instant, RecordType)>>>;

async fn serve_udp(socket: UdpSocket, script: Arc<Mutex<Script>>, asked: Asked) {
    let mut buffer = [0; 4096];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
        let answer = reply(&buffer[..length], &script, &asked, true);
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, peer).await; // the peer may have left
        }
    }
}

async fn serve_tcp(listener: TcpListener, script: Arc<Mutex<Script>>, asked: Asked) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(serve_connection(stream, script.clone(), asked.clone()));
    }
}

async fn serve_connection(mut stream: TcpStream, script: Arc<Mutex<Script>>, asked: Asked) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; length.into()];
        stream.read_exact(&mut question).await.unwrap();
        let Some(answer) = reply(&question, &script, &asked, false) else { continue };
        let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length, answer.as_slice()].concat()).await.unwrap();
    }
}

fn reply(question: &[u8], script: &Mutex<Script>, asked: &Asked, datagram: bool) -> Option<Vec<u8>> {
    let message = Message::from_vec(question).unwrap();
    let query = message.queries.first().unwrap().clone();
    asked.send_modify(|asked| asked.push((Instant::now(), query.query_type())));
    let script = script.lock().unwrap();
    let mut answer = Message::response(message.id, OpCode::Query);
    answer.add_query(query.clone());
    let manner = script.manners.get(&query.query_type()).copied().unwrap_or(script.manner);
    match manner {
        Manner::Silence => return None,
        Manner::Garbage => return Some(vec![0xff; 40]),
        Manner::Code(code) => answer.metadata.response_code = code,
        Manner::Truncated if datagram => answer.metadata.truncation = true,
        Manner::Good | Manner::Truncated => {
            let mut name = query.name().to_lowercase();
            name.set_fqdn(true);
            match script.table.get(&(name, query.query_type())) {
                Some(records) => answer.add_answers(records.iter().cloned()),
                None => {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                    &mut answer
                }
            };
            answer.add_additionals(script.along.iter().cloned());
        }
    }
    Some(answer.to_vec().unwrap())
}
