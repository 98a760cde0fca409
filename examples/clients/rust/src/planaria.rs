//! A thin client of Planaria: one DEALER socket, headers in JSON, through the broker's TLS door with a token.
//! docs/protocol.md has the fields of all requests.
//!
//! The crate zeromq has no TLS. So each connection has two parts: TLS to the broker, and a Unix socket in a folder of
//! this user alone, which the crate connects to. A task copies the bytes between them until either ends.

use std::collections::HashMap;
use std::env::temp_dir;
use std::error::Error;
use std::fmt;
use std::fs::{remove_dir_all, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{json, Value};
use tokio::io;
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, timeout_at, Instant};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{pem::PemObject, CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use zeromq::{DealerSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
pub const ATTEMPT: Duration = Duration::from_secs(10);
pub const PATIENCE: Duration = Duration::from_secs(30);

static FOLDERS: AtomicU64 = AtomicU64::new(0);

/// The outcomes of a request other than ok.
#[derive(Debug)]
pub enum Failure {
    /// The outcome `fail`: the broker has not done it.
    Refused { code: String, message: String, retriable: bool, retry_after_ms: Option<u64> },
    /// The outcome `unknown`: no answer before the deadline. The request may have been done, now or later; repeat it
    /// only if that does no harm.
    Unknown,
    /// There was no connection before the deadline, so nothing was done.
    NotSent(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused { code, message, .. } => write!(out, "{code}: {message}"),
            Failure::Unknown => write!(out, "no answer before the deadline: the request may have been done"),
            Failure::NotSent(reason) => write!(out, "no connection: {reason}"),
        }
    }
}

impl Error for Failure {}

enum Command {
    Ask(u64, Value, oneshot::Sender<Value>),
    Cancel(u64),
}

/// The present connection, or the reason why there is none.
type Connection = Result<mpsc::UnboundedSender<Command>, String>;
type Waiting = Mutex<HashMap<u64, oneshot::Sender<Value>>>;
type Fault = Box<dyn Error + Send + Sync>;

/// Tasks share a client by cloning it. The connection ends with the last clone.
#[derive(Clone)]
pub struct Client {
    connection: watch::Receiver<Connection>,
    hello: Value,
    ids: Arc<AtomicU64>,
}

impl Client {
    /// Connect to `tls://HOST:PORT` in the background, and again after each interruption. The broker's certificate must
    /// be signed by an authority in this PEM file.
    pub fn connect(url: &str, authority: &str, token: &str, client_id: &str) -> Result<Client, Fault> {
        let address = url.strip_prefix("tls://").ok_or("the url is not tls://HOST:PORT")?.to_owned();
        let mut roots = RootCertStore::empty();
        for each in CertificateDer::pem_file_iter(authority).map_err(|error| format!("{authority}: {error}"))? {
            roots.add(each?)?;
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let (state, connection) = watch::channel(Err("not connected yet".to_owned()));
        tokio::spawn(run(address, TlsConnector::from(Arc::new(config)), state));
        let hello = json!({"version": 1, "client_id": client_id, "token": token});
        Ok(Client { connection, hello, ids: Arc::new(AtomicU64::new(1)) })
    }

    /// Greet the broker; it is needed before other requests.
    pub async fn hello(&self) -> Result<Value, Failure> {
        self.repeated("hello", self.hello.clone(), PATIENCE, ATTEMPT).await
    }

    /// Send a request once, over the present connection or the next one.
    pub async fn ask(&self, op: &str, fields: Value, within: Duration) -> Result<Value, Failure> {
        let ends = Instant::now() + within;
        let mut state = self.connection.clone();
        let connection = match timeout_at(ends, state.wait_for(Result::is_ok)).await {
            Ok(Ok(up)) => up.clone().expect("it is up"),
            _ => return Err(Failure::NotSent(self.connection.borrow().clone().err().unwrap_or_default())),
        };
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let mut header = fields;
        header["op"] = op.into();
        header["id"] = id.into();
        if op != "hello" {
            header["greeted"] = true.into();
        }
        let (answer, answered) = oneshot::channel();
        let _ = connection.send(Command::Ask(id, header, answer)); // without a connection `answer` is dropped
        match timeout_at(ends, answered).await {
            Ok(Ok(reply)) => outcome(reply),
            Ok(Err(_)) => Err(Failure::Unknown), // the connection was lost
            Err(_) => {
                let _ = connection.send(Command::Cancel(id));
                Err(Failure::Unknown)
            }
        }
    }

    /// Send a request that does no harm when it is done twice, until its outcome is known and final, or time is over.
    pub async fn repeated(
        &self,
        op: &str,
        fields: Value,
        within: Duration,
        attempt: Duration,
    ) -> Result<Value, Failure> {
        let ends = Instant::now() + within;
        let mut pause = FIRST_PAUSE;
        loop {
            let left = ends.saturating_duration_since(Instant::now());
            let failure = match self.ask(op, fields.clone(), attempt.min(left)).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            let mut asked_pause = None;
            if let Failure::Refused { code, retriable, retry_after_ms, .. } = &failure {
                if !retriable {
                    return Err(failure);
                }
                if code == "HELLO_REQUIRED" {
                    let _ = self.ask("hello", self.hello.clone(), ATTEMPT).await;
                }
                asked_pause = retry_after_ms.map(Duration::from_millis);
            }
            if Instant::now() >= ends {
                return Err(failure);
            }
            sleep(asked_pause.unwrap_or(pause)).await;
            pause = LONGEST_PAUSE.min(2 * pause);
        }
    }

    /// Publish one record, and return whether it was there already. The dedup id makes a repetition harmless.
    pub async fn publish(&self, topic: &str, key: &str, value: &str, dedup_id: &str) -> Result<bool, Failure> {
        let record = json!({"key_text": key, "value_text": value, "dedup_id": dedup_id});
        let fields = json!({"topic": topic, "records": [record]});
        let reply = self.repeated("publish", fields, PATIENCE, ATTEMPT).await?;
        let written = outcome(reply["records"][0].clone())?;
        Ok(written["duplicate"] == true)
    }

    /// Return records of one partition from an offset on, and the next offset; none after `wait`.
    pub async fn fetch(
        &self,
        topic: &str,
        partition: u32,
        offset: u64,
        wait: Duration,
    ) -> Result<(Vec<Value>, u64), Failure> {
        let wait_ms = wait.as_millis() as u64;
        let fields = json!({"topic": topic, "partition": partition, "offset": offset, "max_wait_ms": wait_ms});
        let reply = self.repeated("fetch", fields, wait + PATIENCE, wait + ATTEMPT).await?;
        let records = reply["records"].as_array().cloned().unwrap_or_default();
        Ok((records, reply["next_offset"].as_u64().unwrap_or(offset)))
    }
}

fn outcome(reply: Value) -> Result<Value, Failure> {
    let Some(error) = reply.get("error").filter(|error| !error.is_null()) else {
        return Ok(reply);
    };
    Err(Failure::Refused {
        code: error["code"].as_str().unwrap_or_default().to_owned(),
        message: error["message"].as_str().unwrap_or_default().to_owned(),
        retriable: error["retriable"] == true,
        retry_after_ms: error["retry_after_ms"].as_u64(),
    })
}

/// Keep a connection until no client is left. Requests on a connection that is lost end; `repeated` greets on the next
/// one, as HELLO_REQUIRED asks it to.
async fn run(address: String, tls: TlsConnector, state: watch::Sender<Connection>) {
    while !state.is_closed() {
        let reason = match timeout(ATTEMPT, connect(&address, &tls)).await {
            Ok(Ok((socket, relay))) => {
                let (sender, commands) = mpsc::unbounded_channel();
                state.send_modify(|each| *each = Ok(sender));
                serve(socket, relay, commands, &state).await;
                "the connection was lost".to_owned()
            }
            Ok(Err(error)) => format!("{address}: {error}"),
            Err(_) => format!("{address} does not answer"),
        };
        state.send_modify(|each| *each = Err(reason));
        tokio::select! { _ = state.closed() => {}, _ = sleep(RECONNECT_PAUSE) => {} }
    }
}

/// Pass requests on, and replies, until the connection or the client ends.
async fn serve(
    socket: DealerSocket,
    mut relay: JoinSet<()>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    state: &watch::Sender<Connection>,
) {
    let waiting = Waiting::default();
    let (mut to_broker, mut from_broker) = socket.split();
    let sends = async {
        while let Some(command) = commands.recv().await {
            let header = match command {
                Command::Ask(id, header, answer) => {
                    waiting.lock().unwrap().insert(id, answer);
                    header
                }
                Command::Cancel(id) => {
                    waiting.lock().unwrap().remove(&id);
                    json!({"op": "cancel", "request_id": id})
                }
            };
            if to_broker.send(ZmqMessage::from(header.to_string())).await.is_err() {
                return;
            }
        }
    };
    let receives = async {
        while let Ok(message) = from_broker.recv().await {
            let header: Value = message.get(0).and_then(|frame| serde_json::from_slice(frame).ok()).unwrap_or_default();
            let answer = header["id"].as_u64().and_then(|id| waiting.lock().unwrap().remove(&id));
            if let Some(answer) = answer {
                let _ = answer.send(header);
            }
        }
    };
    tokio::select! { _ = sends => {}, _ = receives => {}, _ = relay.join_next() => {}, _ = state.closed() => {} }
}

/// Connect by TLS, and the socket to a relay.
async fn connect(address: &str, tls: &TlsConnector) -> Result<(DealerSocket, JoinSet<()>), Fault> {
    let (host, _) = address.rsplit_once(':').ok_or("no port")?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
    let secure = tls.connect(name, TcpStream::connect(address).await?).await?;
    let folder = Folder::new()?; // removed at the end; the connection stays
    let path = folder.0.join("relay");
    let mut tasks = JoinSet::new(); // ends them when it is dropped
    tasks.spawn(relay(UnixListener::bind(&path)?, secure));
    let mut socket = DealerSocket::new();
    socket.connect(&format!("ipc://{}", path.display())).await?;
    Ok((socket, tasks))
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Folder> {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let path = temp_dir().join(format!("planaria-{}-{number}", process::id()));
        DirBuilder::new().mode(0o700).create(&path)?; // fails if it exists
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = remove_dir_all(&self.0);
    }
}

async fn relay(listener: UnixListener, secure: TlsStream<TcpStream>) {
    let Ok((plain, _)) = listener.accept().await else { return };
    let (mut from_client, mut to_client) = io::split(plain);
    let (mut from_broker, mut to_broker) = io::split(secure);
    tokio::select! {
        _ = io::copy(&mut from_client, &mut to_broker) => {}
        _ = io::copy(&mut from_broker, &mut to_client) => {}
    }
}
