//! One agent on loopback in a folder of its own, and the program that talks to it.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take on a machine that does much else.
pub const LIMIT: Duration = Duration::from_secs(90);

pub const PERSONS: [(&str, &str); 4] =
    [("vera", "viewer"), ("otto", "operator"), ("anna", "approver"), ("adam", "admin")];

pub struct Lab {
    pub dir: tempfile::TempDir,
    pub admin_port: u16,
    metrics_port: u16,
    agent: Option<Child>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How the program ended and what it said.
#[derive(Debug)]
pub struct Said {
    pub exit: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self { exit: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The program with these arguments; nobody is at its standard input.
pub fn antipode(args: &[&str]) -> Said {
    let mut program = Command::new(env!("CARGO_BIN_EXE_antipode"));
    program.args(args).env("COLUMNS", "100").env_remove("ANTIPODE_IDENTITY").stdin(Stdio::null());
    program.output().expect("the program runs").into()
}

fn must(args: &[&str]) -> Said {
    let said = antipode(args);
    assert_eq!(said.exit, 0, "{args:?}: {said:?}");
    said
}

/// Waits until `done` gives something.
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not within {LIMIT:?}");
        std::thread::yield_now();
    }
}

impl Lab {
    /// An agent that answers, leads its own cluster of one voter, and has a spec in force.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut lab = Self { dir, admin_port: free_tcp(), metrics_port: free_tcp(), agent: None };
        lab.certificates();
        std::fs::write(lab.path("agent.toml"), lab.agent_toml()).expect("written");
        std::fs::write(lab.path("spec.toml"), SPEC).expect("written");
        lab.run_agent();
        let spec = lab.text("spec.toml");
        wait_for("the first apply", || (lab.ask(&["apply", &spec, "--reason", "birth"]).exit == 0).then_some(()));
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn certificates(&self) {
        let authority = self.text("authority");
        must(&["pki", "init", "--dir", &authority, "--cluster", "demo"]);
        must(&["pki", "issue", "--dir", &authority, "--host", "tk-1", "--site", "tokyo", "--out", &self.text("tls")]);
        for (name, role) in PERSONS {
            let out = self.text(name);
            must(&["pki", "issue", "--dir", &authority, "--person", name, "--role", role, "--out", &out]);
        }
    }

    fn agent_toml(&self) -> String {
        let (data, run, tls) = (self.text("data"), self.text("run"), self.text("tls"));
        let (port, admin, metrics) = (free_udp(), self.admin_port, self.metrics_port);
        format!(
            "cluster = \"demo\"\nhost = \"tk-1\"\nsite = \"tokyo\"\ndata_dir = \"{data}\"\nrun_dir = \"{run}\"\n\
             [network]\nlisten = [\"127.0.0.1:{port}\"]\nmetrics = \"127.0.0.1:{metrics}\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n\
             [tls]\nca = \"{tls}/ca.pem\"\ncert = \"{tls}/identity.pem\"\nkey = \"{tls}/identity.pem\"\n\
             crl = \"{tls}/crl.pem\"\n[voter]\nid = 1\n"
        )
    }

    /// Starts the agent and waits until it answers and knows a leader.
    pub fn run_agent(&mut self) {
        let log = std::fs::File::create(self.path("agent.log")).expect("a log");
        let mut program = Command::new(env!("CARGO_BIN_EXE_antipode"));
        program.args(["agent", "--config", &self.text("agent.toml")]).stdin(Stdio::null()).stdout(Stdio::null());
        self.agent = Some(program.stderr(log).spawn().expect("the agent starts"));
        wait_for("a leader", || {
            let ended = self.agent.as_mut().and_then(|agent| agent.try_wait().expect("a child"));
            assert!(ended.is_none(), "the agent ended: {}", read(&self.path("agent.log")));
            let status = self.ask(&["status", "-o", "json"]);
            (status.exit == 0 && !status.json()["quorum"]["leader"].is_null()).then_some(())
        });
    }

    pub fn stop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            // Gone already is as good.
            let _gone = agent.kill();
            let _status = agent.wait();
        }
    }

    /// Asks over the local socket.
    pub fn ask(&self, args: &[&str]) -> Said {
        let socket = self.text("run/admin.sock");
        antipode(&[args, &["--socket", &socket]].concat())
    }

    /// Asks over mutual TLS as this person.
    /// What Prometheus gets.
    pub fn scrape(&self) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics_port)).expect("metrics are served");
        let request = b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
        stream.set_read_timeout(Some(LIMIT)).and_then(|()| stream.write_all(request)).expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }

    pub fn ask_as(&self, person: &str, args: &[&str]) -> Said {
        let (host, identity) = (format!("127.0.0.1:{}", self.admin_port), self.text(person));
        antipode(&[args, &["--host", &host, "--identity", &identity]].concat())
    }
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn free_tcp() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port()
}

fn free_udp() -> u16 {
    UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port()
}

pub const SPEC: &str = r#"[cluster]
name = "demo"
lab = true
[[site]]
name = "tokyo"
[[site]]
name = "osaka"
[[site]]
name = "nagoya"
witness = true
[[host]]
name = "tk-1"
site = "tokyo"
fencing = [["self"]]
[[host]]
name = "os-1"
site = "osaka"
fencing = [["self"]]
[[group]]
name = "erp"
tier = "auto"
home = "tokyo"
accept = ["self-fenced"]
[group.at.tokyo]
kind = "qemu"
hosts = ["tk-1"]
memory = "96MiB"
[group.at.osaka]
kind = "qemu"
hosts = ["os-1"]
memory = "96MiB"
"#;
