//! The client: keeps a connection and a session, asks, and logs in again when the session has ended.
//!
//! Contract: a password is sent only over a checked connection, and once: a refused login isn't repeated. The session's
//! token is kept in memory so that scheduled readings don't open a session each (BMCs allow few); the password isn't.

use super::http::{Answer, Connect, Connection, Lost};
use super::system::error_text;
use crate::secret::{Mask, Secret, SecretRef};
use crate::trouble::Trouble;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, IF_MATCH};
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};

/// How to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// By session where the service's root names them, else with every request.
    Auto,
    /// By session only.
    Session,
    /// With every request (HTTP Basic).
    Basic,
}

/// Who logs in, and how.
#[derive(Clone, Debug)]
pub struct Account {
    /// The user.
    pub user: String,
    /// The password.
    pub password: SecretRef,
    /// How.
    pub login: Login,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// The method.
    pub method: Method,
    /// The path, beginning with a slash.
    pub path: &'a str,
    /// The body.
    pub body: Option<Value>,
    /// The version that must still be in force.
    pub etag: Option<&'a str>,
}

impl<'a> Ask<'a> {
    /// Asks for what is at `path`.
    pub fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, body: None, etag: None }
    }
}

/// Speaks to one service.
pub struct Client {
    connect: Box<dyn Connect>,
    host: String,
    account: Account,
    connection: Option<Connection>,
    token: Option<Secret>,
    basic: bool,
    /// It is still to be seen whether the service has sessions.
    unseen: bool,
}

const ROOT: &str = "/redfish/v1/";
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

impl Client {
    /// A client that has no connection yet.
    pub fn new(connect: Box<dyn Connect>, host: String, account: Account) -> Self {
        let (basic, unseen) = (account.login == Login::Basic, account.login == Login::Auto);
        Self { connect, host, account, connection: None, token: None, basic, unseen }
    }

    /// Makes sure that there is a connection and a login: what is slow, before what is irreversible.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn prepare(&mut self) -> Result<(), Trouble> {
        self.reconnect().await?;
        if self.unseen {
            self.look_for_sessions().await?;
        }
        if self.token.is_none() && !self.basic { self.open_session().await } else { Ok(()) }
    }

    async fn reconnect(&mut self) -> Result<(), Trouble> {
        if !self.connection.as_ref().is_some_and(Connection::is_open) {
            self.connection = Some(Connection::open(&*self.connect).await?);
        }
        Ok(())
    }

    /// Reads the service's root, which is open to everybody, so that no password is tried on a service without
    /// sessions: such a one answers 401 to everything, and that would look like a refused login.
    async fn look_for_sessions(&mut self) -> Result<(), Trouble> {
        let answer = match self.send(&Ask::get(ROOT)).await {
            Ok(answer) => answer,
            Err(Lost::Unsent) => {
                return Err(Trouble::BrokeOff { because: "it closed the connection at once".to_owned() });
            }
            Err(Lost::Trouble(trouble)) => return Err(trouble),
        };
        let root = answer.body.filter(|body| answer.status.is_success() && body.get("RedfishVersion").is_some());
        if let Some(root) = root {
            self.basic = root.get("SessionService").is_none() && root.pointer("/Links/Sessions").is_none();
            self.unseen = false;
        }
        self.reconnect().await
    }

    /// Asks for something that may be asked twice, and gives the body of a good answer.
    ///
    /// # Errors
    /// [`Trouble`], also for every status but success.
    pub async fn get(&mut self, path: &str) -> Result<Answer, Trouble> {
        for attempt in 0..2 {
            self.prepare().await?;
            match self.send(&Ask::get(path)).await {
                // A session that has ended is opened anew, once; a password that is refused isn't tried again.
                Ok(answer) if answer.status == StatusCode::UNAUTHORIZED && attempt == 0 && self.forget_session() => {}
                Ok(answer) => return self.checked(answer),
                Err(Lost::Unsent) if attempt == 0 => self.connection = None,
                Err(Lost::Unsent) => {
                    return Err(Trouble::BrokeOff { because: "it closes every connection".to_owned() });
                }
                Err(Lost::Trouble(trouble)) => return Err(trouble),
            }
        }
        Err(Trouble::LoginRefused { because: "it ends each session at once".to_owned() })
    }

    /// Gives the session up: it has ended. Says whether there was one.
    pub fn forget_session(&mut self) -> bool {
        self.token.take().is_some()
    }

    /// Sends one request over the prepared connection. Whatever goes wrong, the connection is given up.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn send(&mut self, ask: &Ask<'_>) -> Result<Answer, Lost> {
        let request = self.request(ask).map_err(Lost::Trouble)?;
        // Taken out, so that a dropped future leaves no half-used connection behind.
        let Some(mut connection) = self.connection.take() else { return Err(Lost::Unsent) };
        let answer = connection.ask(request).await?;
        self.connection = Some(connection);
        Ok(answer)
    }

    /// Whether an answer is good; if not, what it means.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn checked(&self, answer: Answer) -> Result<Answer, Trouble> {
        if answer.status.is_success() {
            return Ok(answer);
        }
        let said = error_text(answer.body.as_ref());
        let because = self.mask().hide(&format!("HTTP {} {said}", answer.status.as_u16()));
        Err(match answer.status {
            StatusCode::UNAUTHORIZED => Trouble::LoginRefused { because },
            status if status.is_redirection() => {
                let to = answer.headers.get("location").and_then(|to| to.to_str().ok()).unwrap_or_default();
                Trouble::Unusable {
                    because: self.mask().hide(&format!("{because} it redirects to {to}: correct the url")),
                }
            }
            _ => Trouble::Refused { because },
        })
    }

    async fn open_session(&mut self) -> Result<(), Trouble> {
        let password = self.account.password.read()?;
        let body = json!({ "UserName": self.account.user, "Password": password.expose() });
        let ask = Ask { method: Method::POST, path: SESSIONS, body: Some(body), etag: None };
        let answer = match self.send(&ask).await {
            Ok(answer) => answer,
            Err(Lost::Unsent) => {
                return Err(Trouble::BrokeOff { because: "it closed the connection at once".to_owned() });
            }
            Err(Lost::Trouble(trouble)) => return Err(trouble),
        };
        let token = answer.headers.get("x-auth-token").and_then(|token| token.to_str().ok()).map(Secret::new);
        let no_sessions = matches!(
            answer.status,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
        );
        match (token, self.account.login) {
            (Some(token), _) if answer.status.is_success() => {
                self.token = Some(token);
                // Some services close the connection after a login.
                self.reconnect().await
            }
            (None, Login::Auto) if no_sessions => {
                self.basic = true;
                Ok(())
            }
            (_, _) if answer.status.is_success() => {
                Err(Trouble::Garbled { because: "it opened a session and gave no token".to_owned() })
            }
            (_, _) => match self.checked(answer) {
                Err(Trouble::Refused { because }) if because.contains("HTTP 400") || because.contains("HTTP 403") => {
                    Err(Trouble::LoginRefused { because })
                }
                Err(trouble) => Err(trouble),
                Ok(_) => Err(Trouble::Garbled { because: "it opened a session and gave no token".to_owned() }),
            },
        }
    }

    fn request(&self, ask: &Ask<'_>) -> Result<Request<Full<Bytes>>, Trouble> {
        let body = ask.body.as_ref().map(Value::to_string).unwrap_or_default();
        let mut request = Request::builder().method(&ask.method).uri(ask.path).header(HOST, &self.host);
        request = request.header("odata-version", "4.0").header("accept", "application/json");
        if ask.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(etag) = ask.etag {
            request = request.header(IF_MATCH, etag);
        }
        if let Some(token) = &self.token {
            request = request.header("x-auth-token", token.expose());
        } else if self.basic {
            let password = self.account.password.read()?;
            let pair = Secret::new(format!("{}:{}", self.account.user, password.expose()));
            request = request.header(AUTHORIZATION, format!("Basic {}", base64(pair.expose().as_bytes())));
        }
        // The error isn't shown: it may hold a header.
        let unusable =
            |_| Trouble::Unusable { because: "the request can't be made: check url, user and password".to_owned() };
        request.body(Full::from(body)).map_err(unusable)
    }

    fn mask(&self) -> Mask {
        let password = self.account.password.read().ok();
        // As it stands in the header, should the device repeat that.
        let pair = password.as_ref().map(|password| format!("{}:{}", self.account.user, password.expose()));
        let pair = pair.map(|pair| Secret::new(base64(Secret::new(pair).expose().as_bytes())));
        Mask::of(password.into_iter().chain(pair).chain(self.token.clone()))
    }
}

/// Base64 with padding (RFC 4648), for the one header that needs it.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let padded = [chunk[0], chunk.get(1).copied().unwrap_or(0), chunk.get(2).copied().unwrap_or(0)];
        let number = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for place in 0..4 {
            let index = (number >> (18 - 6 * place)) & 63;
            text.push(if place <= chunk.len() { char::from(ALPHABET[index as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_as_in_the_rfc() {
        for (plain, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), text);
        }
    }
}
