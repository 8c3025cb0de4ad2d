//! Clients that ask all the time, and operators who revoke. Neither minds that a vestibule is gone for a while.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::history::{Name, Told, What, Whom};
use super::world::{LANES, World};
use crate::proofs::scaled;
use crate::support::asker::NOBODY;
use crate::support::client::{Client, Response};

pub(super) const TOKEN: &str = "operator-token-0123456789";
/// What leaves the machine to the others, in the short and in the long form.
const PAUSES: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(2));
/// An operator waits no longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A thread with all clients of one vestibule, until the world is over.
pub(super) fn start(world: &Arc<World>, vestibule: usize) -> JoinHandle<()> {
    let world = world.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let clients = (0..LANES).map(|lane| ask_always(&world, vestibule, lane));
        runtime.block_on(futures_util::future::join_all(clients));
    })
}

async fn ask_always(world: &World, vestibule: usize, lane: usize) {
    let (mut connection, mut address) = (None, world.seat(vestibule).address);
    while !world.is_over() {
        sleep(scaled(PAUSES.0, PAUSES.1)).await;
        let seat = world.seat(vestibule);
        if address != seat.address {
            (connection, address) = (None, seat.address);
        }
        let chosen = if world.is_hushed() { None } else { choose(world, lane) };
        let Some(session) = chosen else { continue };
        if connection.is_none() {
            connection = connect(address).await;
        }
        let Some(client) = &mut connection else { continue };
        let begun = world.log.now();
        match ask(client, &session).await {
            Some(told) => world.log.add(begun, What::Asked { vestibule, session, told }),
            None => connection = None,
        }
    }
}

/// Rather a session that is just changing than another one, and now and then one that is over.
fn choose(world: &World, lane: usize) -> Option<Name> {
    let sessions = world.lanes[lane].lock().unwrap();
    let from = match fastrand::usize(..8) {
        0..=2 if !sessions.changing.is_empty() => &sessions.changing,
        3 => &sessions.ended,
        4 => &sessions.revoked,
        5..=6 if !sessions.crowd.is_empty() => &sessions.crowd,
        _ => &sessions.live,
    };
    fastrand::choice(from).cloned()
}

async fn connect(address: SocketAddr) -> Option<Client> {
    let reachable = TcpStream::connect(address).await.is_ok(); // a refusal would fail the test
    if reachable { Some(Client::connect(address).await) } else { None }
}

async fn ask(client: &mut Client, session: &Name) -> Option<Told> {
    let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nCookie: session-id={session}\r\n\r\n");
    client.try_send(request).await.ok()?;
    let response = client.try_response().await.ok()?;
    Some(told(&response))
}

fn told(response: &Response) -> Told {
    if !response.headers.all("set-cookie").is_empty() {
        return Told::CookieCleared;
    }
    match (response.status, response.text()) {
        (200, NOBODY) => Told::Nobody,
        (200, user) => Told::User(user.into()),
        (503, _) => Told::Refused,
        _ => panic!("{response:?}"),
    }
}

/// Revokes over the admin API; the status of the answer, if there was one.
pub(super) async fn revoke(admin: SocketAddr, whom: &Whom) -> Option<u16> {
    let body = match whom {
        Whom::Session(id) => json!({ "id": **id }),
        Whom::User(user) => json!({ "user": **user }),
    };
    let body = body.to_string();
    let request = format!(
        "POST /api/v1/sessions/revoke HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = async {
        let mut client = connect(admin).await?;
        client.try_send(request).await.ok()?;
        client.try_response().await.ok()
    };
    timeout(PATIENCE, answer).await.ok().flatten().map(|response| response.status)
}
