//! The two doors to an app: the Service API with an app key, and the web app with a passport.

use http::{HeaderMap, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::cookies::ACCESS_LIFE;
use super::jwt::Claims;
use super::misc::app_key;
use super::respond::{self, Refusal, Reply};
use super::state::{State, unix_now, uuid};

/// Keys of advanced-chat apps start like this; every other app behind `chat-messages` is a plain chat.
const ADVANCED_CHAT_KEY: &str = "app-advchat-";
const X_APP_CODE: &str = "x-app-code";
const X_APP_PASSPORT: &str = "x-app-passport";
const PASSPORT: &str = "Web API Passport";

/// How an app is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// Below `/v1`.
    Service,
    /// Below `/api`.
    Web,
}

/// Who came in.
#[derive(Debug)]
pub(super) struct Guest {
    /// Whose passport it is; with a key the request's body names the user.
    pub(super) user: Option<String>,
    pub(super) is_advanced_chat: bool,
}

impl Door {
    /// Lets in who has what this door asks for.
    pub(super) fn admit(self, request: &Request<Incoming>, state: &State) -> Result<Guest, Refusal> {
        match self {
            Door::Service => {
                let is_advanced_chat = app_key(request)?.starts_with(ADVANCED_CHAT_KEY);
                Ok(Guest { user: None, is_advanced_chat })
            }
            Door::Web => Ok(Guest { user: Some(holder(request.headers(), state)?), is_advanced_chat: false }),
        }
    }
}

/// `GET /api/passport`: a passport of a new, anonymous user; every app code is known.
pub(super) fn passport(request: &Request<Incoming>, state: &State) -> Result<Reply, Refusal> {
    let code = request.headers().get(X_APP_CODE).and_then(|code| code.to_str().ok());
    let code = code.ok_or_else(|| Refusal::unauthorized("X-App-Code header is missing."))?;
    let claims = Claims {
        user_id: Some(uuid()),
        exp: unix_now() + ACCESS_LIFE,
        iss: Some(code.to_owned()),
        sub: PASSPORT.to_owned(),
        sid: None,
        login: None,
    };
    Ok(respond::json(StatusCode::OK, &json!({"access_token": state.signer.sign(&claims)})))
}

/// The user of the passport among these headers.
fn holder(headers: &HeaderMap, state: &State) -> Result<String, Refusal> {
    let token = headers.get(X_APP_PASSPORT).and_then(|token| token.to_str().ok());
    let token = token.ok_or_else(|| Refusal::unauthorized("App token is missing."))?;
    let claims = state.signer.verify(token, unix_now());
    let claims = claims.map_err(|invalid| Refusal::unauthorized(invalid.to_string()))?;
    let user = claims.user_id.filter(|_| claims.sub == PASSPORT);
    user.ok_or_else(|| Refusal::unauthorized("Invalid token."))
}
