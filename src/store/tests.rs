//! The store as its callers see it: with both threads, on real files, locked, full and killed.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use rusqlite::Connection;

use super::testing::{Folder, flag, kill, rearm, route, subject};
use super::*;
use crate::engine::flags::Threshold;
use crate::engine::flags::schedule::Ramp;
use crate::engine::guard::KillTarget;
use crate::engine::vocab::FlagKey;
use crate::telemetry::clock;

/// Long enough for any machine; nothing waits for it that goes well.
const AMPLE: Duration = Duration::from_secs(20);

fn timing() -> Timing {
    Timing {
        busy: Duration::from_millis(20),
        late: Duration::from_millis(30),
        retry: Duration::from_millis(10),
        retry_at_most: Duration::from_millis(50),
        ramps: Duration::from_millis(1),
        ..Timing::default()
    }
}

fn opened(folder: &Folder) -> Opened {
    let opened = open(&folder.state(), timing());
    assert_eq!(opened.unreadable, None);
    opened
}

fn killed(kills: &KillSet) -> Vec<KillTarget> {
    kills.killed().map(|(target, _)| target).collect()
}

async fn healthy(store: &StoreHandle, wanted: impl FnMut(&StoreHealth) -> bool) -> StoreHealth {
    let mut health = store.health();
    let waited = tokio::time::timeout(AMPLE, health.wait_for(wanted)).await;
    waited
        .map(|seen| seen.expect("the store lives").clone())
        .unwrap_or_else(|_| panic!("{store:?}"))
}

/// A disk that does not come to an end: somebody else holds the write lock.
struct Stalled(Connection);

impl Stalled {
    fn new(folder: &Folder) -> Self {
        let connection = Connection::open(folder.state()).unwrap();
        connection.busy_timeout(AMPLE).unwrap();
        connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
        Self(connection)
    }

    fn end(self) {
        self.0.execute_batch("ROLLBACK").unwrap();
    }
}

fn journal_lines(folder: &Folder) -> usize {
    let text = std::fs::read_to_string(journal::Journal::path_for(&folder.state())).unwrap();
    text.lines().skip(1).filter(|line| !line.is_empty()).count()
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart() {
    let folder = Folder::new();
    let Opened {
        store,
        kills,
        hash_key,
        ramps,
        ..
    } = opened(&folder);
    assert_eq!((killed(&kills), ramps), (vec![], vec![]));
    for change in [
        kill(route("whatsapp"), 0),
        kill(flag("f"), 0),
        kill(subject("whatsapp", 4), 0),
    ] {
        store.keep_kill(change).within(AMPLE).await.unwrap();
    }
    let stored = store.rearm(rearm(flag("f"), 1)).within(AMPLE).await.unwrap();
    assert!(!stored.killed && stored.epoch.0 == 1);
    let mark = RampMark {
        flag: FlagKey::parse("g").unwrap(),
        schedule: Ramp::parse("0..1000").unwrap(),
        reached: Threshold::from_buckets(7),
    };
    store.keep_ramp(mark.clone());
    assert_eq!(*store.health().borrow(), StoreHealth::default());
    assert!(store.close(AMPLE).await);

    let again = opened(&folder);
    assert_eq!(killed(&again.kills), [route("whatsapp"), subject("whatsapp", 4)]);
    assert_eq!(again.kills.find(&flag("f")), Some(&stored));
    assert_eq!(again.ramps, [mark]);
    assert_eq!(again.hash_key.0, hash_key.0);
    assert_eq!(again.store.verify_audit().within(AMPLE).await, Ok(Chain::Whole(4)));
    assert_eq!(
        again
            .store
            .audit_tail(AuditQuery::newest(Some(3), 10))
            .within(AMPLE)
            .await
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn closed_store_says_so_and_still_takes_no_longer() {
    let folder = Folder::new();
    let store = opened(&folder).store;
    assert!(store.close(AMPLE).await);
    assert_eq!(
        store.keep_kill(kill(route("a"), 0)).within(AMPLE).await,
        Err(StoreError::Closed)
    );
    assert_eq!(
        store.rearm(rearm(route("a"), 1)).within(AMPLE).await,
        Err(StoreError::Closed)
    );
}

#[tokio::test]
async fn stalled_state_file_holds_up_nobody_and_loses_nothing() {
    let folder = Folder::new();
    // What was refused goes to the journal at once, however much time a kill has otherwise.
    let store = open(
        &folder.state(),
        Timing {
            late: AMPLE * 3,
            ..timing()
        },
    )
    .store;
    let stalled = Stalled::new(&folder);
    let before = clock::monotonic();
    let patience = Duration::from_millis(100);
    let first = store.keep_kill(kill(route("a"), 0));
    let second = store.keep_kill(kill(flag("f"), 0));
    assert_eq!(first.within(patience).await, Err(StoreError::TooSlow(patience)));
    assert!(clock::monotonic() - before < PATIENCE);

    let health = healthy(&store, |health| health.journaled_kills == 2).await;
    assert_eq!(health.unstored_kills, 2);
    assert_eq!(
        health.last_error.as_deref(),
        Some("the state file is locked by another process")
    );
    assert!(health.since_unix_ms.is_some());
    assert!(journal_lines(&folder) > 0);

    stalled.end();
    second.within(AMPLE).await.unwrap();
    healthy(&store, |health| *health == StoreHealth::default()).await;
    assert!(store.close(AMPLE).await);
    assert_eq!(journal_lines(&folder), 0);
    assert_eq!(killed(&opened(&folder).kills), [flag("f"), route("a")]);
}

#[tokio::test]
async fn kill_goes_to_the_journal_while_the_state_file_does_not_even_refuse() {
    let folder = Folder::new();
    let store = open(
        &folder.state(),
        Timing {
            busy: AMPLE * 3,
            ..timing()
        },
    )
    .store;
    let stalled = Stalled::new(&folder);
    let kept = store.keep_kill(kill(route("a"), 0));
    let health = healthy(&store, |health| health.journaled_kills == 1).await;
    assert_eq!(health.last_error, None);
    assert!(
        !store.close(Duration::from_millis(10)).await,
        "the thread waits for the lock"
    );
    stalled.end();
    kept.within(AMPLE).await.unwrap();
}

#[tokio::test]
async fn kill_that_was_never_stored_is_in_force_after_a_restart() {
    let folder = Folder::new();
    let store = opened(&folder).store;
    store.keep_kill(kill(flag("f"), 0)).within(AMPLE).await.unwrap();
    let stalled = Stalled::new(&folder);
    let _ = store.keep_kill(kill(route("a"), 0));
    let _ = store.keep_kill(kill(subject("b", 6), 0));
    healthy(&store, |health| health.journaled_kills == 2).await;
    assert!(store.close(AMPLE).await);
    stalled.end();

    let again = opened(&folder);
    assert_eq!(killed(&again.kills), [flag("f"), route("a"), subject("b", 6)]);
    healthy(&again.store, |health| *health == StoreHealth::default()).await;
    assert_eq!(again.store.verify_audit().within(AMPLE).await, Ok(Chain::Whole(3)));
    assert!(again.store.close(AMPLE).await);
    assert_eq!(journal_lines(&folder), 0);
}

#[tokio::test]
async fn journal_line_from_before_a_rearm_does_not_undo_it() {
    let folder = Folder::new();
    let store = opened(&folder).store;
    store.keep_kill(kill(route("a"), 0)).within(AMPLE).await.unwrap();
    store.rearm(rearm(route("a"), 1)).within(AMPLE).await.unwrap();
    assert!(store.close(AMPLE).await);
    let mut found = journal::Journal::open(&journal::Journal::path_for(&folder.state()), AMPLE)
        .unwrap()
        .unwrap();
    found.journal.append(&[&kill(route("a"), 0)]).1.unwrap();
    drop(found);
    assert_eq!(killed(&opened(&folder).kills), []);
}

#[tokio::test]
async fn rearm_that_was_refused_for_time_does_not_come_later() {
    let folder = Folder::new();
    let store = opened(&folder).store;
    store.keep_kill(kill(route("a"), 0)).within(AMPLE).await.unwrap();
    let stalled = Stalled::new(&folder);
    let patience = Duration::from_millis(100);
    let answer = store.rearm(rearm(route("a"), 1)).within(patience).await;
    assert_eq!(answer, Err(StoreError::TooSlow(patience)));
    stalled.end();
    // What comes after it is answered, so it was passed over.
    assert_eq!(store.verify_audit().within(AMPLE).await, Ok(Chain::Whole(1)));
    assert!(store.close(AMPLE).await);
    assert_eq!(killed(&opened(&folder).kills), [route("a")]);
}

#[tokio::test]
async fn rearm_waits_for_the_lock_as_long_as_its_caller_does() {
    let folder = Folder::new();
    let store = opened(&folder).store;
    let stalled = Stalled::new(&folder);
    // More than one transaction takes.
    for hash in 0..600 {
        let _ = store.keep_kill(kill(subject("a", hash), 0));
    }
    let _ = store.keep_kill(kill(route("a"), 0));
    let asked = store.rearm(rearm(route("a"), 1));
    healthy(&store, |health| health.last_error.is_some()).await;
    stalled.end();
    let stored = asked.within(AMPLE).await.unwrap();
    assert_eq!(stored.epoch.0, 1);
    let records = store
        .audit_tail(AuditQuery::newest(None, 2))
        .within(AMPLE)
        .await
        .unwrap();
    let actions: Vec<_> = records.iter().map(|record| record.entry.action.as_str()).collect();
    assert_eq!(
        actions,
        ["rearm", "kill"],
        "newest first: the kill was stored before what lifts it"
    );
}

#[tokio::test]
async fn ten_thousand_holds_are_stored_and_a_kill_among_them() {
    let folder = Folder::new();
    let store = opened(&folder).store;
    let stalled = Stalled::new(&folder);
    for hash in 0..10_000 {
        let _ = store.keep_kill(kill(subject("a", hash), 0));
    }
    let _ = store.keep_kill(kill(route("a"), 0));
    // In the journal, the kill of the route does not wait until its subjects are through.
    let path = journal::Journal::path_for(&folder.state());
    let listed = || std::fs::read_to_string(&path).unwrap().contains("\"route:a\"");
    let health = healthy(&store, |health| health.journaled_kills > 0 && listed()).await;
    assert!(health.journaled_kills < 9_000, "{health:?}");
    stalled.end();
    healthy(&store, |health| health.unstored_kills == 0).await;
    assert!(store.close(AMPLE).await);
    assert_eq!(killed(&opened(&folder).kills).len(), 10_001);
}

#[tokio::test]
async fn state_file_that_is_gone_beside_its_journal_is_told_and_comes_back_with_all_it_knew() {
    let folder = Folder::new();
    let store = opened(&folder).store;
    store.keep_kill(kill(flag("f"), 0)).within(AMPLE).await.unwrap();
    assert!(store.close(AMPLE).await);
    let aside = folder.state().with_extension("aside");
    std::fs::rename(folder.state(), &aside).unwrap();

    let Opened { store, unreadable, .. } = open(&folder.state(), timing());
    assert!(unreadable.expect("told").what.contains("gone"));
    let _ = store.keep_kill(kill(route("a"), 0));
    healthy(&store, |health| health.journaled_kills == 1).await;
    assert!(store.close(AMPLE).await);
    assert!(!folder.state().exists(), "what was lost is not made anew");

    std::fs::rename(&aside, folder.state()).unwrap();
    assert_eq!(killed(&opened(&folder).kills), [flag("f"), route("a")]);
}

#[tokio::test]
async fn without_either_file_it_is_a_first_start() {
    let folder = Folder::new();
    let store = opened(&folder).store;
    store.keep_kill(kill(flag("f"), 0)).within(AMPLE).await.unwrap();
    assert!(store.close(AMPLE).await);
    std::fs::remove_file(folder.state()).unwrap();
    std::fs::remove_file(journal::Journal::path_for(&folder.state())).unwrap();
    assert_eq!(killed(&opened(&folder).kills), []);
}

#[tokio::test]
async fn unreadable_state_file_is_told_and_kills_go_to_the_journal() {
    let folder = Folder::new();
    let store = opened(&folder).store;
    store.keep_kill(kill(flag("f"), 0)).within(AMPLE).await.unwrap();
    assert!(store.close(AMPLE).await);
    let sound = std::fs::read(folder.state()).unwrap();
    std::fs::write(folder.state(), "scrambled").unwrap();

    let Opened { store, unreadable, .. } = open(&folder.state(), timing());
    let unreadable = unreadable.expect("told");
    assert_eq!(unreadable.path, folder.state());
    let error = StoreError::Unusable(unreadable);
    assert_eq!(
        store.keep_kill(kill(route("a"), 0)).within(AMPLE).await,
        Err(error.clone())
    );
    assert_eq!(store.rearm(rearm(flag("f"), 1)).within(AMPLE).await, Err(error));
    let health = healthy(&store, |health| health.journaled_kills == 1).await;
    assert!(health.unstored_kills == 1 && health.last_error.is_some());
    assert!(store.close(AMPLE).await);
    assert_eq!(std::fs::read(folder.state()).unwrap(), b"scrambled");

    std::fs::write(folder.state(), sound).unwrap();
    assert_eq!(killed(&opened(&folder).kills), [flag("f"), route("a")]);
}

#[tokio::test]
async fn unreadable_journal_is_told_and_kills_go_to_the_state_file() {
    let folder = Folder::new();
    let store = opened(&folder).store;
    assert!(store.close(AMPLE).await);
    let path = journal::Journal::path_for(&folder.state());
    std::fs::write(&path, "scrambled").unwrap();

    let Opened { store, unreadable, .. } = open(&folder.state(), timing());
    assert_eq!(unreadable.expect("told").path, path);
    store.keep_kill(kill(route("a"), 0)).within(AMPLE).await.unwrap();
    assert!(store.health().borrow().journal_error.is_some());
    assert!(store.close(AMPLE).await);
    assert_eq!(std::fs::read(&path).unwrap(), b"scrambled");

    std::fs::remove_file(&path).unwrap();
    assert_eq!(killed(&opened(&folder).kills), [route("a")]);
}

#[tokio::test]
async fn subjects_held_under_another_secret_make_the_journal_unreadable() {
    let folder = Folder::new();
    drop(opened(&folder));
    let elsewhere = Folder::new();
    let store = opened(&elsewhere).store;
    let stalled = Stalled::new(&elsewhere);
    let _ = store.keep_kill(kill(subject("a", 1), 0));
    let _ = store.keep_kill(kill(route("b"), 0));
    healthy(&store, |health| health.journaled_kills == 2).await;
    assert!(store.close(AMPLE).await);
    drop(stalled);
    let path = journal::Journal::path_for(&folder.state());
    std::fs::copy(journal::Journal::path_for(&elsewhere.state()), &path).unwrap();

    let Opened { unreadable, kills, .. } = open(&folder.state(), timing());
    assert_eq!(unreadable.expect("told").path, path);
    assert_eq!(killed(&kills), [route("b")]);
}

#[tokio::test]
async fn state_in_use_by_another_instance_is_left_to_it() {
    let folder = Folder::new();
    let store = opened(&folder).store;
    let second = open(
        &folder.state(),
        Timing {
            open: Duration::from_millis(400),
            ..timing()
        },
    );
    assert!(
        second
            .unreadable
            .expect("told")
            .to_string()
            .contains("in use by another instance")
    );
    store.keep_kill(kill(route("a"), 0)).within(AMPLE).await.unwrap();
}

#[tokio::test]
async fn start_does_not_wait_for_a_state_file_that_does_not_answer() {
    let folder = Folder::new();
    assert!(opened(&folder).store.close(AMPLE).await);
    let stalled = Connection::open(folder.state()).unwrap();
    stalled
        .execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
        .unwrap();
    let before = clock::monotonic();
    let opened = open(
        &folder.state(),
        Timing {
            open: Duration::from_millis(200),
            busy: AMPLE,
            ..timing()
        },
    );
    assert!(clock::monotonic() - before < AMPLE / 2);
    assert!(
        opened
            .unreadable
            .expect("told")
            .to_string()
            .contains("did not answer in time")
    );
}

/// Where a child of these tests keeps its state.
const CHILD_STATE: &str = "UNDERSTUDY_TEST_STATE";

/// A disk that takes nothing for so long is full, not slow.
const FULL_AFTER: Duration = Duration::from_secs(3);

/// A second process that keeps kills and says what became of each: `kept N stored`, `kept N unstored`.
struct Keeper {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Keeper {
    /// `limit` is what the shell is to do before the child begins.
    fn start(folder: &Folder, limit: &str) -> Self {
        let (_, module) = module_path!().split_once("::").expect("a module of the crate");
        let test = format!("{module}::child_keeps_kills");
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("{limit} exec \"$0\" --exact \"$1\" --ignored --nocapture"))
            .arg(std::env::current_exe().unwrap())
            .arg(test)
            .env(CHILD_STATE, folder.state())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next thing that it says.
    fn says(&mut self) -> Option<String> {
        self.lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("keeper: ")?.1.to_owned()))
    }

    fn go_on(&mut self) {
        writeln!(self.child.stdin.as_mut().unwrap(), "go on").unwrap();
    }

    /// SIGKILL; gives what it had said by then.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        let rest = std::iter::from_fn(|| self.says()).collect();
        self.child.wait().unwrap();
        rest
    }
}

#[tokio::test]
#[ignore = "a part of the tests below, which run it in a process of its own"]
async fn child_keeps_kills() {
    let Some(state) = std::env::var_os(CHILD_STATE) else {
        return;
    };
    let opened = open(Path::new(&state), timing());
    println!(
        "keeper: {}",
        if opened.unreadable.is_none() {
            "ready"
        } else {
            "unreadable"
        }
    );
    let store = opened.store;
    for number in 0.. {
        match store
            .keep_kill(kill(flag(&format!("f{number}")), 0))
            .within(FULL_AFTER)
            .await
        {
            Ok(()) => println!("keeper: kept {number} stored"),
            Err(_) => {
                healthy(&store, |health| health.journaled_kills == 1).await;
                println!("keeper: kept {number} unstored");
                break;
            }
        }
    }
    let refused = store
        .rearm(rearm(flag("f0"), 1))
        .within(PATIENCE)
        .await
        .expect_err("the disk is full");
    println!("keeper: {refused}");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    healthy(&store, |health| *health == StoreHealth::default()).await;
    store.rearm(rearm(flag("f0"), 1)).within(AMPLE).await.unwrap();
    assert!(store.close(AMPLE).await);
    println!("keeper: done");
}

fn number_kept(line: &str) -> usize {
    line.split(' ')
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{line}"))
}

fn assert_killed(kills: &KillSet, numbers: std::ops::Range<usize>) {
    for number in numbers {
        assert!(
            kills.find(&flag(&format!("f{number}"))).is_some_and(|kill| kill.killed),
            "kill {number} is lost"
        );
    }
}

#[tokio::test]
async fn acknowledged_kills_survive_a_sudden_end() {
    let folder = Folder::new();
    let mut keeper = Keeper::start(&folder, "");
    assert_eq!(keeper.says().as_deref(), Some("ready"));
    let mut said: Vec<_> = (0..25).filter_map(|_| keeper.says()).collect();
    said.extend(keeper.kill());
    let last = number_kept(said.last().unwrap());
    assert!(last >= 24 && said.iter().all(|line| line.ends_with(" stored")));

    let again = opened(&folder);
    assert_killed(&again.kills, 0..last + 1);
    assert!(
        matches!(again.store.verify_audit().within(AMPLE).await, Ok(Chain::Whole(records)) if records > last as u64)
    );
}

/// No file may grow beyond 800 blocks, which the journal with its reserved space does not need to.
const FULL_DISK: &str = "trap '' XFSZ; ulimit -S -f 800;";

/// A keeper on a full disk, with the number of the kill that the state file did not take.
fn keeper_on_a_full_disk(folder: &Folder) -> (Keeper, usize) {
    let mut keeper = Keeper::start(folder, FULL_DISK);
    assert_eq!(keeper.says().as_deref(), Some("ready"));
    let unstored = loop {
        let line = keeper.says().expect("the disk fills up");
        if line.ends_with(" unstored") {
            break number_kept(&line);
        }
    };
    assert!(unstored > 0);
    let refused = keeper.says().unwrap();
    assert!(refused.contains("the state file could not be written"), "{refused}");
    (keeper, unstored)
}

#[tokio::test]
async fn full_disk_takes_kills_to_the_journal_and_a_sudden_end_loses_none() {
    let folder = Folder::new();
    let (keeper, unstored) = keeper_on_a_full_disk(&folder);
    keeper.kill();

    let again = opened(&folder);
    assert_killed(&again.kills, 0..unstored + 1);
    healthy(&again.store, |health| *health == StoreHealth::default()).await;
    assert_eq!(
        again.store.verify_audit().within(AMPLE).await,
        Ok(Chain::Whole(unstored as u64 + 1))
    );
}

#[tokio::test]
async fn room_on_the_disk_lets_everything_be_stored() {
    let folder = Folder::new();
    let (mut keeper, unstored) = keeper_on_a_full_disk(&folder);
    let pid = keeper.child.id().to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &pid, "--fsize=unlimited:"])
        .status()
        .unwrap();
    assert!(raised.success());
    keeper.go_on();
    assert_eq!(keeper.says().as_deref(), Some("done"));
    keeper.child.wait().unwrap();

    assert_eq!(journal_lines(&folder), 0);
    let again = opened(&folder);
    assert_killed(&again.kills, 1..unstored + 1);
    assert!(!again.kills.find(&flag("f0")).unwrap().killed);
}
