//! The console login: password in, three cookies out, and the check of every later request.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::cookies::{ACCESS_LIFE, Cookie, REFRESH_LIFE};
use super::jwt::{Claims, Invalid};
use super::ledger::Entry;
use super::misc::read_json;
use super::respond::{Refusal, Reply, json, success};
use super::sessions::{Logins, Records, new_refresh_token};
use super::state::{State, unix_now, uuid};
use super::users::{self, User};
use crate::session::{CONTROL_HEADER, SessionId};

/// What the ledger calls the login, on the answer to a login.
const X_STUB_LOGIN: HeaderName = HeaderName::from_static("x-stub-login");

#[derive(Deserialize)]
struct Credentials {
    email: String,
    /// Base64 of the password.
    password: String,
}

/// `POST /console/api/login`
pub(super) async fn login(request: Request<Incoming>, state: &Arc<State>) -> Result<Reply, Refusal> {
    let credentials: Credentials = read_json(request).await?;
    let password =
        BASE64_STANDARD.decode(credentials.password).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let password = password.ok_or_else(|| authentication_failed("Invalid encrypted data"))?;
    let user = users::authenticate(&credentials.email, &password)
        .ok_or_else(|| authentication_failed("Invalid email or password."))?;
    state.stats.logins.fetch_add(1, Relaxed);
    let (mut reply, login) = (success(), uuid());
    match &*state.logins() {
        Logins::Records { access, refresh } => {
            issue(state, access, refresh, &user, &login, reply.headers_mut()).await?;
        }
        Logins::Proxy => {
            Cookie::Csrf.set(reply.headers_mut(), &csrf_token(state, &user.id, Some(&login)));
            reply.headers_mut().insert(CONTROL_HEADER, session_of(&user)?);
        }
    }
    let name = HeaderValue::try_from(&login).map_err(|_| Refusal::internal())?;
    reply.headers_mut().insert(X_STUB_LOGIN, name);
    state.note(&Entry::Granted { login, user: user.id })?;
    Ok(reply)
}

fn authentication_failed(message: &'static str) -> Refusal {
    Refusal::Error {
        status: StatusCode::UNAUTHORIZED,
        code: "authentication_failed",
        message: message.into(),
    }
}

fn session_of(user: &User) -> Result<HeaderValue, Refusal> {
    let User { id, name, email } = user;
    HeaderValue::try_from(format!("set; user_id=\"{id}\"; name=\"{name}\"; email=\"{email}\""))
        .map_err(|_| Refusal::internal())
}

/// Creates session and refresh record for `user` and sets the three cookies.
async fn issue(
    state: &State,
    access: &Records,
    refresh: &Records,
    user: &User,
    login: &str,
    headers: &mut HeaderMap,
) -> Result<(), Refusal> {
    let sid = SessionId::generate().map_err(|_| Refusal::internal())?;
    let refresh_token = new_refresh_token()?;
    let claims = Claims {
        user_id: Some(user.id.clone()),
        exp: unix_now() + ACCESS_LIFE,
        iss: Some("SELF_HOSTED".to_owned()),
        sub: "Console API Passport".to_owned(),
        sid: Some(sid.expose().to_owned()),
        login: None,
    };
    Cookie::Access.set(headers, &state.signer.sign(&claims));
    Cookie::Refresh.set(headers, refresh_token.expose());
    Cookie::Csrf.set(headers, &csrf_token(state, &user.id, Some(login)));
    access.create(&sid, user, ACCESS_LIFE).await?;
    refresh.create(&refresh_token, user, REFRESH_LIFE).await
}

fn csrf_token(state: &State, user_id: &str, login: Option<&str>) -> String {
    let exp = unix_now() + ACCESS_LIFE;
    let login = login.map(str::to_owned);
    state.signer.sign(&Claims { user_id: None, exp, iss: None, sub: user_id.to_owned(), sid: None, login })
}

/// `POST /console/api/logout`: succeeds for anybody, like Dify's.
pub(super) async fn logout(request: Request<Incoming>, state: &Arc<State>) -> Result<Reply, Refusal> {
    let mut reply = success();
    match &*state.logins() {
        Logins::Records { access, refresh } => {
            if let Ok(claims) = access_claims(request.headers(), state)
                && let Some(sid) = claims.sid
            {
                access.end(&SessionId::new(&sid)).await?;
            }
            if let Some(token) = Cookie::Refresh.read(request.headers()) {
                refresh.end(&SessionId::new(token)).await?;
            }
        }
        Logins::Proxy => {
            reply.headers_mut().insert(CONTROL_HEADER, HeaderValue::from_static("end"));
        }
    }
    if let Some(login) = login_of(request.headers(), state) {
        state.note(&Entry::Ended { login })?;
    }
    for cookie in [Cookie::Access, Cookie::Refresh, Cookie::Csrf] {
        cookie.clear(reply.headers_mut());
    }
    Ok(reply)
}

/// `POST /console/api/refresh-token`: a refresh token works once.
pub(super) async fn refresh(request: Request<Incoming>, state: &Arc<State>) -> Result<Reply, Refusal> {
    let mut reply = success();
    let login = login_of(request.headers(), state);
    match &*state.logins() {
        Logins::Records { access, refresh } => {
            let token = Cookie::Refresh.read(request.headers());
            let token = SessionId::new(token.ok_or(Refusal::RefreshFailed("No refresh token provided"))?);
            let user = refresh.load(&token).await?;
            let refusal = Refusal::RefreshFailed("Invalid refresh token");
            let user = user.ok_or_else(|| lost(request.headers(), state, refusal))?;
            refresh.end(&token).await?;
            // The login goes on, unless its name went lost with the page's cookie.
            let login = login.unwrap_or_else(uuid);
            issue(state, access, refresh, &user, &login, reply.headers_mut()).await?;
        }
        // The session's life is the proxy's matter; only the CSRF token is ours.
        Logins::Proxy => {
            let user = injected_user(request.headers())
                .ok_or(Refusal::RefreshFailed("No refresh token provided"))?;
            Cookie::Csrf.set(reply.headers_mut(), &csrf_token(state, &user.id, login.as_deref()));
        }
    }
    state.stats.refreshes.fetch_add(1, Relaxed);
    Ok(reply)
}

/// What `GET /console/api/account/profile` answers.
#[derive(Serialize)]
struct Profile<'a> {
    id: &'a str,
    name: &'a str,
    avatar: Option<&'a str>,
    avatar_url: Option<&'a str>,
    email: &'a str,
    is_password_set: bool,
    interface_language: &'a str,
    interface_theme: &'a str,
    timezone: &'a str,
    last_login_at: u64,
    last_login_ip: &'a str,
    created_at: u64,
}

/// `GET /console/api/account/profile`
pub(super) async fn profile(request: Request<Incoming>, state: &Arc<State>) -> Result<Reply, Refusal> {
    let user = authorize(request.headers(), state).await?;
    let profile = Profile {
        id: &user.id,
        name: &user.name,
        avatar: None,
        avatar_url: None,
        email: &user.email,
        is_password_set: true,
        interface_language: "en-US",
        interface_theme: "light",
        timezone: "America/New_York",
        last_login_at: unix_now(),
        last_login_ip: "127.0.0.1",
        created_at: 1_767_225_600,
    };
    Ok(json(StatusCode::OK, &profile))
}

/// The user a console request belongs to, after both checks: who it is and that the page itself sent it.
async fn authorize(headers: &HeaderMap, state: &State) -> Result<User, Refusal> {
    let user = identify(headers, state).await?;
    if let Some(login) = login_of(headers, state) {
        state.note(&Entry::Used { login })?;
    }
    Ok(user)
}

async fn identify(headers: &HeaderMap, state: &State) -> Result<User, Refusal> {
    match &*state.logins() {
        Logins::Records { access, .. } => {
            let claims = access_claims(headers, state)?;
            let sid = claims.sid.ok_or(Refusal::NotLoggedIn)?;
            let user = access.load(&SessionId::new(&sid)).await?;
            let user = user.ok_or_else(|| lost(headers, state, Refusal::NotLoggedIn))?;
            let csrf = double_submitted(headers)?;
            match state.signer.verify(csrf, unix_now()) {
                Ok(claims) if claims.sub == user.id => Ok(user),
                Ok(_) | Err(_) => Err(csrf_refusal()),
            }
        }
        Logins::Proxy => {
            let Some(user) = injected_user(headers) else {
                let refusal = Refusal::unauthorized("Invalid Authorization token.");
                let was_logged_in = Cookie::Csrf.read(headers).is_some();
                return Err(if was_logged_in { lost(headers, state, refusal) } else { refusal });
            };
            double_submitted(headers).map(|_| user)
        }
    }
}

/// The claims of the access cookie, or of the bearer token without one.
fn access_claims(headers: &HeaderMap, state: &State) -> Result<Claims, Refusal> {
    let token = Cookie::Access.read(headers).or_else(|| bearer(headers));
    let token = token.ok_or_else(|| Refusal::unauthorized("Invalid Authorization token."))?;
    state.signer.verify(token, unix_now()).map_err(|invalid| {
        let refusal = Refusal::unauthorized(invalid.to_string());
        if invalid == Invalid::Signature { lost(headers, state, refusal) } else { refusal }
    })
}

/// The token of `Authorization: Bearer TOKEN`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// The CSRF token, if cookie and header carry the same one.
fn double_submitted(headers: &HeaderMap) -> Result<&str, Refusal> {
    let header = headers.get("x-csrf-token").and_then(|value| value.to_str().ok());
    match (header, Cookie::Csrf.read(headers)) {
        (Some(header), Some(cookie)) if header == cookie => Ok(cookie),
        _ => Err(csrf_refusal()),
    }
}

fn csrf_refusal() -> Refusal {
    Refusal::unauthorized("CSRF token is missing or invalid.")
}

/// The user the proxy tells us of.
fn injected_user(headers: &HeaderMap) -> Option<User> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let id = text("x-user-id").filter(|id| !id.is_empty())?;
    Some(User {
        id,
        name: text("x-user-name").unwrap_or_default(),
        email: text("x-user-email").unwrap_or_default(),
    })
}

/// The name of the login that a request comes with.
fn login_of(headers: &HeaderMap, state: &State) -> Option<String> {
    state.signer.verify(Cookie::Csrf.read(headers)?, unix_now()).ok()?.login
}

/// Counts a user who was logged in and is not known here.
fn lost(headers: &HeaderMap, state: &State, refusal: Refusal) -> Refusal {
    state.stats.sessions_unknown.fetch_add(1, Relaxed);
    let noted = login_of(headers, state).map_or(Ok(()), |login| state.note(&Entry::Refused { login }));
    noted.err().unwrap_or(refusal)
}
