//! What only the operator can do.

mod api;
pub(crate) mod command;
mod hosts;
mod readiness;
mod upstreams;

use std::net::SocketAddr;

use crate::support::client;
use crate::support::config::Config;
use crate::support::upstream::{Reply, Upstream};

const TOKEN: &str = "operator-token-0123456789";

/// An application that logs in whoever `/login/NAME` names, and otherwise tells whom it was told the user is.
async fn application() -> Upstream {
    Upstream::start(|request| match request.target.strip_prefix("/login/") {
        Some(user) => {
            let word = format!("set; user_id=\"{user}\"; name=\"name-of-{user}\"");
            Reply::with_headers(200, &[("Vestibule-Session", &word)], "")
        }
        None => Reply::text(200, request.headers.get("x-user-id").unwrap_or("nobody")),
    })
    .await
}

/// Sessions in the proxy's own memory, and an API with a token.
fn config(application: &Upstream) -> Config {
    Config::to(&[application.address()]).workers(2).upstream("session_control = true").token(TOKEN)
}

/// Logs in through the proxy at `address`; the session's id.
async fn login(address: SocketAddr, user: &str) -> String {
    let response = client::get(address, &format!("/login/{user}")).await;
    let cookie = response.headers.get("set-cookie").unwrap();
    let id = cookie.strip_prefix("session-id=").unwrap().split(';').next().unwrap();
    assert_eq!(who(address, id).await, user);
    id.to_owned()
}

/// Who the application thinks the holder of this session is.
async fn who(address: SocketAddr, id: &str) -> String {
    let cookie = format!("session-id={id}");
    client::get_with(address, "/", &[("Cookie", &cookie)]).await.text().to_owned()
}
