use std::ffi::OsString;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, MySqlConnection, Row as _};
use tempfile::TempDir;

/// The command line of a MySQL server without its data directory, one word a line. `cargo xtask failover` sets it.
const PROGRAM: &str = "TEST_GROUP_PROGRAM";
/// Where the members' data goes.
const FOLDER: &str = "TEST_GROUP_FOLDER";
/// The group's name: the transactions of its members are counted under it, and no others may be there.
const NAME: &str = "6f0c8f6e-3a52-4c0e-9d52-51b0a8a1c001";
const MEMBERS: usize = 3;
/// Looks for something to happen before it is given up, and the time between them.
const LOOKS_MAX: usize = 2_400;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Three MySQL servers on this machine as one replication group with a single primary. They end with this value.
#[derive(Debug)]
pub struct Group {
    members: Vec<Member>,
    _folder: TempDir,
}

/// A member and its process.
#[derive(Debug)]
struct Member {
    home: PathBuf,
    port: u16,
    process: Option<Child>,
    /// Everything but the program: it starts the same again and again.
    options: Vec<OsString>,
}

impl Group {
    /// Makes the servers and the group. To be called on a thread that outlives it.
    ///
    /// # Panics
    ///
    /// When there is no server program, or the servers do not become a group.
    pub async fn start() -> Self {
        // Another run removes folders of processes that are gone, which it tells by their names.
        let prefix = format!("{}-group-", std::process::id());
        let mut named = tempfile::Builder::new();
        named.prefix(&prefix);
        let folder = match std::env::var_os(FOLDER) {
            Some(folder) => named.tempdir_in(folder),
            None => named.tempdir(),
        };
        let folder = folder.expect("a folder for the group");
        let first = folder.path().join("1");
        initialize(&first);
        let ports: Vec<u16> = free_ports(2 * MEMBERS);
        let (ports, internal) = ports.split_at(MEMBERS);
        let seeds: Vec<_> = internal.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut members = Vec::new();
        for (index, port) in ports.iter().copied().enumerate() {
            let home = folder.path().join((index + 1).to_string());
            if index > 0 {
                copy(&first.join("data"), &home.join("data"));
            }
            let mut options = data_options(&home);
            options.extend(member_options(index, port, &seeds).into_iter().map(OsString::from));
            members.push(Member { home, port, process: None, options });
        }
        for member in &mut members {
            // The copies must not think that they are one server.
            let _ = fs::remove_file(member.home.join("data/auto.cnf")); // it need not be there yet
            member.start();
        }
        let group = Self { members, _folder: folder };
        for index in 0..MEMBERS {
            let mut member = group.await_answer(index).await;
            run(
                &mut member,
                "CHANGE REPLICATION SOURCE TO SOURCE_USER = 'app', SOURCE_PASSWORD = 'secret' \
                 FOR CHANNEL 'group_replication_recovery'",
            )
            .await;
            if index == 0 {
                run(&mut member, "SET GLOBAL group_replication_bootstrap_group = ON").await;
                run(&mut member, "START GROUP_REPLICATION").await;
                run(&mut member, "SET GLOBAL group_replication_bootstrap_group = OFF").await;
            } else {
                run(&mut member, "START GROUP_REPLICATION").await;
            }
        }
        group.await_whole().await;
        group
    }

    /// How many members there are, dead or alive.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A URL that names every member, the given one last.
    #[must_use]
    pub fn url(&self, last: usize, database: &str) -> String {
        let order = (1..=self.members.len()).map(|step| (last + step) % self.members.len());
        let hosts: Vec<_> = order.map(|index| format!("127.0.0.1:{}", self.members[index].port)).collect();
        format!("mysql://app:secret@{}/{database}", hosts.join(","))
    }

    /// A connection to one member; `None` when it does not answer.
    pub async fn connect(&self, index: usize) -> Option<MySqlConnection> {
        let options = MySqlConnectOptions::new()
            .host("127.0.0.1")
            .port(self.members[index].port)
            .username("app")
            .password("secret")
            .timezone(None);
        let connecting = tokio::time::timeout(Duration::from_secs(2), options.connect());
        connecting.await.ok()?.ok()
    }

    /// Which member is the primary and takes writes.
    pub async fn primary(&self) -> Option<usize> {
        for index in 0..self.members.len() {
            if self.takes_writes(index).await == Some(true) {
                return Some(index);
            }
        }
        None
    }

    /// Waits for another primary than this member.
    ///
    /// # Panics
    ///
    /// When there is none for two minutes.
    pub async fn await_other_primary(&self, than: usize) -> usize {
        let others: Vec<_> = (0..self.members.len()).filter(|index| *index != than).collect();
        for _ in 0..LOOKS_MAX {
            for &index in &others {
                if self.takes_writes(index).await == Some(true) {
                    return index;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        panic!("no other member became the primary:\n{}", self.logs());
    }

    /// Whether a member is the primary and takes writes; `None` when it does not say.
    pub async fn takes_writes(&self, index: usize) -> Option<bool> {
        let mut member = self.connect(index).await?;
        let sql = "SELECT NOT @@super_read_only AND EXISTS (SELECT 1 FROM performance_schema.replication_group_members \
                   WHERE member_id = @@server_uuid AND member_state = 'ONLINE' AND member_role = 'PRIMARY')";
        member.fetch_one(sql).await.ok()?.try_get::<i64, _>(0).ok().map(|takes| takes == 1)
    }

    /// The process of a member, to send it signals.
    ///
    /// # Panics
    ///
    /// When it does not run.
    #[must_use]
    pub fn process(&self, index: usize) -> u32 {
        self.members[index].process.as_ref().expect("the member runs").id()
    }

    /// Kills a member with SIGKILL.
    ///
    /// # Panics
    ///
    /// When it cannot be killed.
    pub fn kill(&mut self, index: usize) {
        let mut process = self.members[index].process.take().expect("the member runs");
        process.kill().expect("a child can be killed");
        process.wait().expect("a killed child ends");
    }

    /// Starts a killed member again. It answers, and takes writes that the group would never see, before it joins the group:
    /// whoever writes to it then has a fault that [`Group::strangers`] shows.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn restart(&mut self, index: usize) {
        self.members[index].start();
        let mut member = self.await_answer(index).await;
        run(&mut member, "START GROUP_REPLICATION").await;
    }

    /// Makes a member the primary, as before maintenance of the one that is.
    ///
    /// # Panics
    ///
    /// When the group refuses.
    pub async fn promote(&self, index: usize) {
        let mut member = self.await_answer(index).await;
        let row = member.fetch_one("SELECT @@server_uuid").await.expect("the member answers");
        let id: String = row.get(0);
        run(&mut member, &format!("SELECT group_replication_set_as_primary('{id}')")).await;
    }

    /// Waits until every member is in the group and takes part.
    ///
    /// # Panics
    ///
    /// When that takes longer than two minutes.
    pub async fn await_whole(&self) {
        let sql = "SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE member_state = 'ONLINE'";
        for _ in 0..LOOKS_MAX {
            let mut whole = 0;
            for index in 0..self.members.len() {
                let Some(mut member) = self.connect(index).await else { break };
                let online = member.fetch_one(sql).await.ok().and_then(|row| row.try_get::<i64, _>(0).ok());
                whole += usize::from(online == i64::try_from(self.members.len()).ok());
            }
            if whole == self.members.len() {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        panic!("the group is not whole:\n{}", self.logs());
    }

    /// Transactions of a member that did not come through the group: something wrote to a member that was not the primary.
    ///
    /// # Panics
    ///
    /// When the member does not answer.
    pub async fn strangers(&self, index: usize) -> Vec<String> {
        let mut member = self.await_answer(index).await;
        let row = member.fetch_one("SELECT @@gtid_executed").await.expect("the member answers");
        let executed: String = row.get(0);
        let sets = executed.split(',').map(|set| set.trim().to_owned());
        sets.filter(|set| !set.is_empty() && !set.starts_with(NAME)).collect()
    }

    async fn await_answer(&self, index: usize) -> MySqlConnection {
        for _ in 0..LOOKS_MAX {
            if let Some(member) = self.connect(index).await {
                return member;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        panic!("member {} does not answer:\n{}", index + 1, self.logs());
    }

    /// The last lines of every member's log.
    fn logs(&self) -> String {
        let tail = |member: &Member| {
            let text = fs::read(member.home.join("log")).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<_> = text.lines().collect();
            format!("{}:\n{}", member.home.display(), lines[lines.len().saturating_sub(12)..].join("\n"))
        };
        self.members.iter().map(tail).collect::<Vec<_>>().join("\n")
    }
}

impl Member {
    fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.home.join("log")).expect("a log");
        let child = program()
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("the server program starts");
        self.process = Some(child);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill(); // it may have ended
            let _ = process.wait();
        }
        let _ = fs::remove_file(socket(self.port));
        let _ = fs::remove_file(socket(self.port).with_extension("sock.lock"));
    }
}

/// The server program with the options that it needs wherever its data is.
fn program() -> Command {
    let words = std::env::var(PROGRAM).unwrap_or_else(|_| panic!("run this with `cargo xtask failover`"));
    let mut words = words.lines();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).env("XTASK_PARENT", std::process::id().to_string());
    command
}

/// Makes the first data directory, with the account that the tests and the members themselves use.
fn initialize(home: &Path) {
    fs::create_dir_all(home).expect("a folder for a member");
    let accounts = "CREATE USER 'app'@'%' IDENTIFIED BY 'secret';\nGRANT ALL ON *.* TO 'app'@'%' WITH GRANT OPTION;\n";
    let init = home.join("init.sql");
    fs::write(&init, accounts).expect("a file can be written");
    let log = fs::File::create(home.join("log")).expect("a log");
    let mut init_file = OsString::from("--init-file=");
    init_file.push(&init);
    let status = program()
        .args(data_options(home))
        .args(["--initialize-insecure", "--disable-log-bin"])
        .arg(init_file)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .status()
        .expect("the server program starts");
    let log = fs::read_to_string(home.join("log")).unwrap_or_default();
    assert!(status.success(), "no data directory was made ({status}):\n{log}");
}

fn data_options(home: &Path) -> Vec<OsString> {
    let of = |option: &str, value: &Path| {
        let mut word = OsString::from(option);
        word.push(value);
        word
    };
    vec![
        of("--datadir=", &home.join("data")),
        of("--tmpdir=", home),
        of("--pid-file=", &home.join("pid")),
        "--innodb-redo-log-capacity=8M".into(),
        "--innodb-flush-method=nosync".into(),
        "--innodb-doublewrite=0".into(),
    ]
}

/// A killed process leaves to the kernel what it wrote, so nothing here waits for the disk.
fn member_options(index: usize, port: u16, seeds: &[String]) -> Vec<String> {
    let socket = socket(port);
    vec![
        format!("--port={port}"),
        format!("--socket={}", socket.display()),
        format!("--server-id={}", index + 1),
        format!("--group-replication-local-address={}", seeds[index]),
        format!("--group-replication-group-seeds={}", seeds.join(",")),
        format!("--group-replication-group-name={NAME}"),
        "--bind-address=127.0.0.1".into(),
        "--report-host=127.0.0.1".into(),
        "--mysqlx=OFF".into(),
        "--gtid-mode=ON".into(),
        "--enforce-gtid-consistency=ON".into(),
        "--log-bin=binlog".into(),
        "--sync-binlog=0".into(),
        "--innodb-flush-log-at-trx-commit=2".into(),
        "--innodb-buffer-pool-size=64M".into(),
        "--max-connections=300".into(),
        "--plugin-load-add=group_replication.so".into(),
        "--group-replication-start-on-boot=OFF".into(),
        "--group-replication-ip-allowlist=127.0.0.1/8".into(),
        "--group-replication-recovery-get-public-key=ON".into(),
        // docs/SCALING.md says what these two are for.
        "--group-replication-member-expel-timeout=0".into(),
        "--group-replication-unreachable-majority-timeout=5".into(),
    ]
}

/// A socket's path must be short, which a target directory's need not be.
fn socket(port: u16) -> PathBuf {
    std::env::temp_dir().join(format!("queue-group-{port}.sock"))
}

/// Free ports below those that outgoing connections take.
fn free_ports(count: usize) -> Vec<u16> {
    let mut held = Vec::new();
    for _ in 0..1_000 {
        let random = u16::try_from(RandomState::new().hash_one(0) % 8_000).expect("below 8,000");
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", 20_000 + random)) {
            held.push(listener);
        }
        if held.len() == count {
            break;
        }
    }
    assert_eq!(held.len(), count, "no free ports between 20000 and 28000");
    held.iter().map(|listener| listener.local_addr().expect("it listens").port()).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a folder can be read") {
        let entry = entry.expect("a folder can be read");
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target);
        } else {
            fs::copy(&source, &target).expect("a file can be copied");
        }
    }
}

async fn run(member: &mut MySqlConnection, sql: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *member).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}
