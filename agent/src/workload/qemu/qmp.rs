//! One connection to a QEMU monitor (QMP).
//!
//! Commands, their framing and error classes are those of crate `qapi`; the connection is our own, for two reasons seen
//! in `qapi` 0.15: a command whose future is dropped (any time limit) ends its whole stream, as the late answer finds
//! no receiver; and it can't send out of band, while `yank` must reach a QEMU whose main loop waits for a dead peer.
//! Answers with deep schemas are read as the few fields we use, so that another QEMU version doesn't break them.
//!
//! A time limit means *unknown*: the command may still be carried out.

use qapi::{Any, Command, ErrorClass, Execute, ExecuteOob};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, mpsc, oneshot};

/// A monitor's answer is a list of block jobs or nodes at most; a longer line is no monitor.
const LINE_BYTES_MAX: usize = 4 << 20;

/// Lines that wait to be written. QEMU itself reads no further after eight commands that it could not begin.
const ORDERS_MAX: usize = 8;

/// Events kept for a listener that is slow; it re-reads the state when it missed some.
const EVENTS_KEPT: usize = 256;

/// Why a monitor command has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// There is no monitor to talk to, or it went away. A command under way may or may not have been carried out.
    #[error("talk to the monitor")]
    Closed(#[source] io::Error),
    /// No answer in time. The command may still be carried out.
    #[error("hear from the monitor within {0:?}")]
    Silent(Duration),
    /// QEMU refused the command; nothing was changed.
    #[error("{command}: {text}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's class of error.
        class: ErrorClass,
        /// QEMU's words.
        text: String,
    },
    /// The answer has another form than documented.
    #[error("understand the answer to {command}: {text}")]
    Malformed {
        /// The command.
        command: String,
        /// What was wrong.
        text: String,
    },
}

impl QmpError {
    /// True if QEMU itself answered that it didn't do it.
    pub fn is_refusal(&self) -> bool {
        matches!(self, QmpError::Refused { .. })
    }
}

/// Something that QEMU reported by itself.
#[derive(Clone, Debug)]
pub struct QmpEvent {
    /// Its name, such as `BLOCK_JOB_COMPLETED`.
    pub name: String,
    /// Its details.
    pub data: Value,
}

type Answer = Result<Value, (ErrorClass, String)>;

#[derive(Default)]
struct Waiting {
    next_id: u64,
    /// `None` after the connection ended.
    answers: Option<BTreeMap<u64, oneshot::Sender<Answer>>>,
}

/// An open connection. QEMU serves one client per monitor socket at a time.
pub struct Qmp {
    waiting: Arc<Mutex<Waiting>>,
    writer: mpsc::Sender<Vec<u8>>,
    events: broadcast::Sender<QmpEvent>,
    tasks: [tokio::task::JoinHandle<()>; 2],
    limit: Duration,
    can_skip_queue: bool,
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Qmp {
    /// Connects and negotiates; `limit` is the time limit of this and of each later command.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn connect(socket: &Path, limit: Duration) -> Result<Self, QmpError> {
        tokio::time::timeout(limit, Self::negotiate(socket, limit)).await.map_err(|_| QmpError::Silent(limit))?
    }

    async fn negotiate(socket: &Path, limit: Duration) -> Result<Self, QmpError> {
        let stream = UnixStream::connect(socket).await.map_err(QmpError::Closed)?;
        let (read, write) = stream.into_split();
        let mut lines = Lines { read: BufReader::new(read), line: Vec::new() };
        let greeting = lines.next().await.map_err(QmpError::Closed)?;
        let offered = greeting.pointer("/QMP/capabilities").and_then(Value::as_array).cloned().ok_or_else(|| {
            QmpError::Malformed { command: "greeting".into(), text: greeting.to_string().chars().take(200).collect() }
        })?;
        let can_skip_queue = offered.iter().any(|capability| capability == "oob");
        let waiting = Arc::new(Mutex::new(Waiting { next_id: 0, answers: Some(BTreeMap::new()) }));
        let events = broadcast::Sender::new(EVENTS_KEPT);
        let (writer, orders) = mpsc::channel(ORDERS_MAX);
        let reader = tokio::spawn(lines.deliver(Arc::clone(&waiting), events.clone()));
        let tasks = [reader, tokio::spawn(send_lines(write, orders))];
        let qmp = Self { waiting, writer, events, tasks, limit, can_skip_queue };
        let enable: &[&str] = if can_skip_queue { &["oob"] } else { &[] };
        qmp.call("qmp_capabilities", json!({ "enable": enable })).await?;
        Ok(qmp)
    }

    /// False once the connection has ended.
    pub fn is_open(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).answers.is_some()
    }

    /// The events from now on.
    pub fn events(&self) -> broadcast::Receiver<QmpEvent> {
        self.events.subscribe()
    }

    /// Executes one of `qapi`'s commands.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn execute<C: Command>(&self, command: C) -> Result<C::Ok, QmpError> {
        let (id, answer) = self.expect()?;
        let line = serde_json::to_vec(&Execute::with_id(command, id)).map_err(|e| malformed(C::NAME, &e))?;
        read_as(C::NAME, self.exchange(C::NAME, line, answer).await?)
    }

    /// Executes a command ahead of the queue, even while QEMU's main loop is busy waiting; in the queue if this QEMU
    /// has no such way.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn execute_at_once<C: Command>(&self, command: C) -> Result<C::Ok, QmpError> {
        if !C::ALLOW_OOB || !self.can_skip_queue {
            return self.execute(command).await;
        }
        let (id, answer) = self.expect()?;
        let line = serde_json::to_vec(&ExecuteOob::new(command, id)).map_err(|e| malformed(C::NAME, &e))?;
        read_as(C::NAME, self.exchange(C::NAME, line, answer).await?)
    }

    /// Executes a command given as name and arguments, for those whose schema is deeper than what we say.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn call(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let (id, answer) = self.expect()?;
        let line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string().into_bytes();
        self.exchange(command, line, answer).await
    }

    /// As [`Self::call`], with the answer read as `T`.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn query<T: DeserializeOwned>(&self, command: &str, arguments: Value) -> Result<T, QmpError> {
        read_as(command, self.call(command, arguments).await?)
    }

    fn expect(&self) -> Result<(u64, oneshot::Receiver<Answer>), QmpError> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.next_id += 1;
        let id = waiting.next_id;
        let (sender, receiver) = oneshot::channel();
        let answers = waiting.answers.as_mut().ok_or_else(|| QmpError::Closed(closed()))?;
        // Those who stopped waiting leave nothing behind.
        answers.retain(|_, sender| !sender.is_closed());
        answers.insert(id, sender);
        Ok((id, receiver))
    }

    async fn exchange(
        &self,
        command: &str,
        mut line: Vec<u8>,
        answer: oneshot::Receiver<Answer>,
    ) -> Result<Value, QmpError> {
        line.push(b'\n');
        let exchange = async {
            self.writer.send(line).await.map_err(|_| QmpError::Closed(closed()))?;
            answer.await.map_err(|_| QmpError::Closed(closed()))
        };
        let answer = tokio::time::timeout(self.limit, exchange).await.map_err(|_| QmpError::Silent(self.limit))??;
        answer.map_err(|(class, text)| QmpError::Refused { command: command.to_owned(), class, text })
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the monitor closed the connection")
}

fn malformed(command: &str, error: &serde_json::Error) -> QmpError {
    QmpError::Malformed { command: command.to_owned(), text: error.to_string() }
}

fn read_as<T: DeserializeOwned>(command: &str, answer: Value) -> Result<T, QmpError> {
    serde_json::from_value(answer).map_err(|error| malformed(command, &error))
}

/// Writes whole lines only: a caller that ran out of time must not leave half a command behind.
async fn send_lines(mut write: OwnedWriteHalf, mut orders: mpsc::Receiver<Vec<u8>>) {
    while let Some(line) = orders.recv().await {
        if write.write_all(&line).await.is_err() {
            return;
        }
    }
}

/// Reads what QEMU says, line by line.
struct Lines<R = OwnedReadHalf> {
    read: BufReader<R>,
    line: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    async fn next(&mut self) -> io::Result<Value> {
        self.line.clear();
        loop {
            let chunk = self.read.fill_buf().await?;
            if chunk.is_empty() {
                return Err(closed());
            }
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(chunk.len(), |at| at + 1);
            self.line.extend_from_slice(&chunk[..taken]);
            self.read.consume(taken);
            if self.line.len() > LINE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "endless line"));
            }
            if end.is_some() {
                return serde_json::from_slice(&self.line).map_err(io::Error::from);
            }
        }
    }

    /// Hands answers to those who wait and events to those who listen, until the connection ends.
    async fn deliver(mut self, waiting: Arc<Mutex<Waiting>>, events: broadcast::Sender<QmpEvent>) {
        while let Ok(mut said) = self.next().await {
            if let Some(name) = said.get("event").and_then(Value::as_str) {
                let event = QmpEvent { name: name.to_owned(), data: said["data"].take() };
                // Nobody listening is fine.
                let _ = events.send(event);
                continue;
            }
            let Some(id) = said.get("id").and_then(Value::as_u64) else { continue };
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(sender) = waiting.answers.as_mut().and_then(|answers| answers.remove(&id)) {
                // Whoever ran out of time is gone; the connection goes on.
                let _ = sender.send(as_answer(said));
            }
        }
        waiting.lock().unwrap_or_else(PoisonError::into_inner).answers = None;
    }
}

fn as_answer(mut said: Any) -> Answer {
    match said.get_mut("error") {
        Some(error) => {
            let desc = error.get("desc").and_then(Value::as_str).unwrap_or_default().to_owned();
            // An error that isn't even an object is one all the same; indexing it for writing would panic.
            let class = error.get_mut("class").map(Value::take).and_then(|class| serde_json::from_value(class).ok());
            Err((class.unwrap_or(ErrorClass::GenericError), desc))
        }
        None => Ok(said["return"].take()),
    }
}

/// Everything that `said` says to somebody who waits for the answers 1 to 3 and listens: what a fuzzer calls. Answers
/// whether anything of it was understood.
pub(crate) async fn hear(said: &[u8]) -> bool {
    let (senders, mut answers): (BTreeMap<_, _>, Vec<_>) = (1..=3)
        .map(|id| {
            let (sender, receiver) = oneshot::channel();
            ((id, sender), receiver)
        })
        .unzip();
    let waiting = Arc::new(Mutex::new(Waiting { next_id: 3, answers: Some(senders) }));
    let events = broadcast::Sender::new(EVENTS_KEPT);
    let mut heard = events.subscribe();
    Lines { read: BufReader::new(said), line: Vec::new() }.deliver(waiting, events).await;
    heard.try_recv().is_ok() || answers.iter_mut().any(|answer| answer.try_recv().is_ok())
}
