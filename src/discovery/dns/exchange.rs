//! One query to one resolver (RFC 1035 section 4.2): over UDP, and over TCP if the response is truncated.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Largest UDP payload that is not fragmented on any common network (DNS flag day 2020).
const DATAGRAM: u16 = 1232;

/// Why a resolver gave no usable response.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the question cannot be written: {0}")]
    Question(#[from] hickory_proto::ProtoError),
    #[error("nothing that can be read came in time")]
    TimedOut,
    #[error("the answer cannot be read")]
    Unreadable,
}

/// Queries `server` within `patience`. The datagram is sent again once after half of the time, in case it was
/// lost. UDP responses that do not match the query are ignored.
pub(super) async fn ask(
    server: SocketAddr,
    name: &Name,
    kind: RecordType,
    patience: Duration,
) -> Result<Message, ExchangeError> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(DATAGRAM);
    question.set_edns(edns);
    let bytes = question.to_vec()?;
    let exchange = async {
        let answer = by_datagram(server, &question, &bytes, patience / 2).await?;
        match answer.metadata.truncation {
            true => by_connection(server, &question, &bytes).await,
            false => Ok(answer),
        }
    };
    timeout(patience, exchange).await.unwrap_or(Err(ExchangeError::TimedOut))
}

async fn by_datagram(
    server: SocketAddr,
    question: &Message,
    bytes: &[u8],
    again: Duration,
) -> Result<Message, ExchangeError> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    // After this the system delivers only datagrams from this server.
    socket.connect(server).await?;
    socket.send(bytes).await?;
    match timeout(again, answer_to(&socket, question)).await {
        Ok(answer) => answer,
        Err(_) => {
            socket.send(bytes).await?;
            answer_to(&socket, question).await
        }
    }
}

async fn answer_to(socket: &UdpSocket, question: &Message) -> Result<Message, ExchangeError> {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = buffer.get(..length).and_then(|bytes| read(bytes, question)) {
            return Ok(answer);
        }
    }
}

async fn by_connection(
    server: SocketAddr,
    question: &Message,
    bytes: &[u8],
) -> Result<Message, ExchangeError> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(|_| ExchangeError::Unreadable)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    read(&answer, question).ok_or(ExchangeError::Unreadable)
}

/// Parses `bytes`. Returns `None` unless they are a response to `question`: same id, same queries.
fn read(bytes: &[u8], question: &Message) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let is_ours = answer.metadata.id == question.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == question.queries;
    is_ours.then_some(answer)
}
