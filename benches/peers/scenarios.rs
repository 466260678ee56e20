//! What is measured, and against what.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::backend::{self, BlackHole, Manner, Refusing, Service, Services};
use super::fixture::Ask;
use super::load::Load;
use super::machine::{self, Core};
use super::proxies::{Job, Program, Programs, Proxy};
use super::table::{Row, median, percentile};
use super::{LOAD, PROXY};

/// Kept-alive connections of the closed loop.
const CONNECTIONS: usize = 32;

/// Requests per second of the open loop.
const PACE: u64 = 2_000;

/// The share of exchanges that must have arrived and been compared.
const ARRIVED: f64 = 0.999;

/// How thorough a run is.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: usize,
    pub span: Duration,
    pub requests: u64,
    pub starts: usize,
}

/// Everything that a scenario needs.
pub struct Bench {
    pub programs: Programs,
    /// The peers that are there.
    pub peers: Vec<Program>,
    pub effort: Effort,
    pub rows: Vec<Row>,
}

/// A scenario's name and what it does.
pub type Scenario = (&'static str, fn(&mut Bench) -> io::Result<()>);

/// All of them, in the order of the table.
pub const ALL: [Scenario; 10] = [
    ("get", |bench| bench.plain(Ask::Get)),
    ("post", |bench| bench.plain(Ask::Post)),
    ("post-json", |bench| bench.plain(Ask::PostJson)),
    ("mirror", Bench::mirror),
    ("latency", Bench::latency),
    ("faults", Bench::faults),
    ("memory", Bench::memory),
    ("idle", Bench::idle),
    ("start", Bench::start),
    ("growth", Bench::growth),
];

struct Stage {
    _services: Services,
    legacy: Service,
    new: Service,
}

impl Stage {
    fn new(new: Manner) -> io::Result<Self> {
        let (services, mut listening) = backend::start(&[Manner::Prompt, new], LOAD, false)?;
        let (Some(new), Some(legacy)) = (listening.pop(), listening.pop()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        Ok(Self {
            _services: services,
            legacy,
            new,
        })
    }

    fn job(&self, mirrored: bool) -> Job {
        Job {
            legacy: self.legacy.address,
            new: self.new.address,
            mirrored,
            flags: 10,
            routes: 2,
            workers: 1,
            core: PROXY,
        }
    }
}

/// What one round of the closed loop came to.
struct Sample {
    micros: f64,
    answered: u64,
    failed: u64,
}

impl Bench {
    fn plain(&mut self, ask: Ask) -> io::Result<()> {
        let stage = Stage::new(Manner::Prompt)?;
        let ours = self.programs.start(Program::Understudy, &stage.job(false))?.0;
        let peers = self.start_peers(&self.peers, &stage.job(false));
        let (name, haproxy) = match ask {
            Ask::Get => ("plain GET, header identity", (1.15, 1.00)),
            Ask::Post => ("POST 1.2 KB, header identity", (1.20, 1.00)),
            Ask::PostJson => ("POST 1.2 KB, identity from its JSON", (1.30, 1.05)),
        };
        let limits = |program| match (program, ask) {
            (Program::Haproxy, _) => Some(haproxy),
            (Program::Nginx, Ask::Get | Ask::Post) => Some((1.10, 0.90)),
            (Program::Envoy, Ask::Get | Ask::Post) => Some((0.50, 0.38)),
            _ => None,
        };
        let mut failed = 0;
        let mut rounds: Vec<Vec<f64>> = Vec::new();
        for _ in 0..self.effort.rounds {
            let mut round = Vec::new();
            for proxy in std::iter::once(&ours).chain(&peers) {
                let sample = self.closed(proxy, CONNECTIONS, ask)?;
                if proxy.program == Program::Understudy {
                    failed += sample.failed;
                }
                round.push(sample.micros);
            }
            rounds.push(round);
        }
        let void = (failed > 0).then(|| format!("{failed} requests failed"));
        self.ratios(name, &rounds, &peers, limits, &void);
        Ok(())
    }

    fn mirror(&mut self) -> io::Result<()> {
        for (ask, manner, name) in [
            (Ask::Get, Manner::Prompt, "mirror and compare, equal answers, GET"),
            (
                Ask::Post,
                Manner::Prompt,
                "mirror and compare, equal answers, POST 1.2 KB",
            ),
            (
                Ask::Get,
                Manner::Different,
                "mirror and compare, 8 of 30 members differ, GET",
            ),
        ] {
            let stage = Stage::new(manner)?;
            let job = stage.job(true);
            let ours = self.programs.start(Program::Understudy, &job)?.0;
            let mirrors: Vec<Program> = self.peers.iter().copied().filter(|p| *p != Program::Haproxy).collect();
            let peers = self.start_peers(&mirrors, &job);
            let mut rounds: Vec<Vec<f64>> = Vec::new();
            let mut arrivals = vec![(0, 0); peers.len() + 1];
            let verdict = if manner == Manner::Prompt { "same" } else { "diverged" };
            let compared_before = ours.counter("understudy_compared_total", verdict)?;
            for _ in 0..self.effort.rounds {
                let mut round = Vec::new();
                for (at, proxy) in std::iter::once(&ours).chain(&peers).enumerate() {
                    let before = stage.new.arrived.load(Relaxed);
                    let sample = self.closed(proxy, CONNECTIONS, ask)?;
                    arrivals[at].0 += stage.new.arrived.load(Relaxed) - before;
                    arrivals[at].1 += sample.answered;
                    round.push(sample.micros);
                }
                rounds.push(round);
            }
            let compared = ours.counter("understudy_compared_total", verdict)? - compared_before;
            let share = |(there, asked): (u64, u64)| part(there, asked);
            let void = (share(arrivals[0]) < ARRIVED || part(compared, arrivals[0].1) < ARRIVED).then(|| {
                format!(
                    "{:.2} % arrived, {:.2} % were compared",
                    share(arrivals[0]) * 100.0,
                    part(compared, arrivals[0].1) * 100.0
                )
            });
            for (proxy, arrived) in peers.iter().zip(&arrivals[1..]) {
                if share(*arrived) < ARRIVED {
                    eprintln!(
                        "{} delivered only {:.2} % of its copies",
                        proxy.program.name(),
                        share(*arrived) * 100.0
                    );
                }
            }
            let limits = |program| match (program, manner) {
                (Program::Nginx, Manner::Prompt) => Some((0.50, 0.40)),
                (Program::Envoy, Manner::Prompt) => Some((0.48, 0.35)),
                (Program::Nginx, _) => Some((0.70, 0.55)),
                _ => None,
            };
            self.ratios(name, &rounds, &peers, limits, &void);
        }
        Ok(())
    }

    fn latency(&mut self) -> io::Result<()> {
        let stage = Stage::new(Manner::Prompt)?;
        let ours = self.programs.start(Program::Understudy, &stage.job(true))?.0;
        let peers = self.start_peers(&[Program::Nginx], &stage.job(false));
        let mut rounds = Vec::new();
        for _ in 0..self.effort.rounds {
            let mut round = Vec::new();
            for proxy in std::iter::once(&ours).chain(&peers) {
                let mut load = Load::connect(proxy.address, CONNECTIONS, Ask::Get)?;
                load.open_until(PACE, Instant::now() + Duration::from_millis(300))?;
                let mut took = load.open_until(PACE, Instant::now() + self.effort.span)?;
                round.push(percentile(&mut took, 50));
            }
            rounds.push(round);
        }
        let limits = |_| Some((1.25, 1.10));
        self.ratios(
            "p50 at 2,000 requests/s, mirror and compare on / nginx plain",
            &rounds,
            &peers,
            limits,
            &None,
        );
        Ok(())
    }

    fn faults(&mut self) -> io::Result<()> {
        let stage = Stage::new(Manner::Prompt)?;
        let manners = [Manner::Slow, Manner::NeverReads, Manner::Floods];
        let (_faulty, broken) = backend::start(&manners, LOAD, true)?;
        let refusing = Refusing::new()?;
        let hole = BlackHole::new()?;
        let targets = [
            ("500 ms slow", broken[0].address),
            ("refused", refusing.address()?),
            ("a black hole", hole.address()?),
            ("never reading", broken[1].address),
            ("flooding", broken[2].address),
        ];
        for (name, target) in targets {
            let healthy = self.programs.start(Program::Understudy, &stage.job(true))?.0;
            let job = Job {
                new: target,
                ..stage.job(true)
            };
            let faulty = self.programs.start(Program::Understudy, &job)?.0;
            let mut rounds = Vec::new();
            let mut grown: f64 = 0.0;
            for _ in 0..self.effort.rounds {
                let mut round = Vec::new();
                for proxy in [&faulty, &healthy] {
                    let mut load = Load::connect(proxy.address, CONNECTIONS, Ask::Post)?;
                    load.open_until(PACE, Instant::now() + Duration::from_millis(300))?;
                    let mut took = load.open_until(PACE, Instant::now() + self.effort.span)?;
                    round.push(percentile(&mut took, 99));
                    if load.count().failed > 0 {
                        eprintln!("{name}: {} requests failed", load.count().failed);
                    }
                }
                grown = grown.max(megabytes(faulty.memory()?) - megabytes(healthy.memory()?));
                rounds.push(round);
            }
            let column = |at: usize| rounds.iter().map(|round: &Vec<f64>| round[at]).collect::<Vec<_>>();
            let ratios: Vec<f64> = rounds.iter().map(|round| round[0] / round[1]).collect();
            self.push(Row {
                figure: format!("p99 of the served side, mirror target {name} / healthy"),
                ours: median(&column(0)),
                unit: "us",
                peer: Some(("healthy".into(), median(&column(1)))),
                ratio: Some(median(&ratios)),
                required: Some(1.5),
                goal: Some(1.15),
                void: None,
            });
            self.push(absolute(
                format!("memory, mirror target {name} over healthy"),
                grown,
                "MB",
                (24.0, 10.0),
            ));
        }
        Ok(())
    }

    fn memory(&mut self) -> io::Result<()> {
        for (mirrored, name) in [(false, "plain"), (true, "mirror and compare")] {
            let stage = Stage::new(Manner::Prompt)?;
            let ours = self.programs.start(Program::Understudy, &stage.job(mirrored))?.0;
            let at_first = megabytes(ours.memory()?);
            let mut load = Load::connect(ours.address, CONNECTIONS, Ask::Get)?;
            load.closed_count(self.effort.requests, Duration::from_secs(300))?;
            load.settle(Duration::from_secs(2))?;
            let asked = load.count().answered;
            eprintln!("memory, {name}: {at_first:.1} MB after the first request");
            self.push(absolute(
                format!("memory (PSS) after {asked} requests, {name}"),
                megabytes(ours.memory()?),
                "MB",
                (30.0, 15.0),
            ));
        }
        Ok(())
    }

    fn idle(&mut self) -> io::Result<()> {
        let stage = Stage::new(Manner::Prompt)?;
        let all: Vec<Program> = std::iter::once(Program::Understudy)
            .chain(self.peers.iter().copied())
            .collect();
        for proxy in self.start_peers(&all, &stage.job(false)) {
            let before = megabytes(proxy.memory()?);
            let mut load = Load::connect(proxy.address, 10_000, Ask::Get)?;
            load.once_each(100)?;
            // By then the connections that served the requests are closed, and what is left is held by idle clients.
            std::thread::sleep(Duration::from_secs(3));
            let after = megabytes(proxy.memory()?);
            eprintln!("{}: {before:.1} MB, then {after:.1} MB", proxy.program.name());
            let figure = format!("memory (PSS) with 10,000 idle connections, {}", proxy.program.name());
            if proxy.program == Program::Understudy {
                self.push(absolute(figure, after, "MB", (200.0, 110.0)));
            } else {
                self.push(plain(figure, after, "MB"));
            }
        }
        Ok(())
    }

    fn start(&mut self) -> io::Result<()> {
        let stage = Stage::new(Manner::Prompt)?;
        let all: Vec<Program> = std::iter::once(Program::Understudy)
            .chain(self.peers.iter().copied())
            .collect();
        for program in all {
            let mut took = Vec::new();
            for _ in 0..self.effort.starts {
                let (_, time) = self.programs.start(program, &stage.job(false))?;
                took.push(time.as_secs_f64() * 1_000.0);
            }
            let figure = format!("start to first answered request, {}", program.name());
            if program == Program::Understudy {
                self.push(absolute(figure, median(&took), "ms", (40.0, 15.0)));
            } else {
                self.push(plain(figure, median(&took), "ms"));
            }
        }
        Ok(())
    }

    fn growth(&mut self) -> io::Result<()> {
        let stage = Stage::new(Manner::Prompt)?;
        let base = Job {
            routes: 1,
            ..stage.job(false)
        };
        let flags = Job {
            flags: 10_000,
            ..base.clone()
        };
        let routes = Job {
            routes: 1_000,
            ..base.clone()
        };
        self.compare("10,000 flags / 10", &base, &flags, CONNECTIONS)?;
        self.compare("1,000 routes / 1", &base, &routes, CONNECTIONS)?;
        self.compare("5,000 connections / 32, 32 requests at a time", &base, &base, 5_000)?;
        self.crowd(&base)?;
        let both = |workers| Job {
            workers,
            core: Core::Any,
            ..base.clone()
        };
        self.compare("two workers / one, on both cores", &both(1), &both(2), CONNECTIONS)
    }

    fn compare(&mut self, name: &str, few: &Job, many: &Job, connections: usize) -> io::Result<()> {
        let few = self.programs.start(Program::Understudy, few)?.0;
        let many = self.programs.start(Program::Understudy, many)?.0;
        let mut rounds = Vec::new();
        for _ in 0..self.effort.rounds {
            let more = self.closed_by(&many, connections, CONNECTIONS, Ask::Get)?.micros;
            let less = self.closed(&few, CONNECTIONS, Ask::Get)?.micros;
            rounds.push((more, less));
        }
        let ratios: Vec<f64> = rounds.iter().map(|(more, less)| more / less).collect();
        let (more, less): (Vec<f64>, Vec<f64>) = rounds.into_iter().unzip();
        self.push(Row {
            figure: format!("growth of the cost per request, {name}"),
            ours: median(&more),
            unit: "us",
            peer: Some(("small".into(), median(&less))),
            ratio: Some(median(&ratios)),
            required: Some(1.10),
            goal: Some(1.10),
            void: None,
        });
        Ok(())
    }

    /// Thousands of requests at the same time leave every cache: what that costs anybody is shown beside us.
    fn crowd(&mut self, job: &Job) -> io::Result<()> {
        const CROWD: usize = 5_000;
        // Each proxy keeps its connections to the services, which this process holds beside the clients' ends.
        let held_for_each = self.peers.len() + 3;
        let allowed = usize::try_from(machine::descriptors()).unwrap_or(CROWD) / held_for_each;
        let crowd = CROWD.min(allowed);
        let ours = self.programs.start(Program::Understudy, job)?.0;
        let peers = self.start_peers(&self.peers, job);
        let mut rounds = Vec::new();
        for _ in 0..self.effort.rounds.min(5) {
            let mut round = Vec::new();
            for proxy in std::iter::once(&ours).chain(&peers) {
                round.push(self.closed(proxy, crowd, Ask::Get)?.micros);
            }
            rounds.push(round);
        }
        self.ratios(&format!("{crowd} requests at a time"), &rounds, &peers, |_| None, &None);
        Ok(())
    }

    /// One round of the closed loop. What a mirror still has to do when the clients have stopped belongs to its cost.
    fn closed(&self, proxy: &Proxy, connections: usize, ask: Ask) -> io::Result<Sample> {
        self.closed_by(proxy, connections, connections, ask)
    }

    fn closed_by(&self, proxy: &Proxy, connections: usize, at_once: usize, ask: Ask) -> io::Result<Sample> {
        let mut load = Load::connect(proxy.address, connections, ask)?;
        load.limit(at_once);
        load.closed_until(Instant::now() + Duration::from_millis(300))?;
        let (before, asked) = (proxy.cpu_nanos()?, load.count().answered);
        load.closed_until(Instant::now() + self.effort.span)?;
        load.settle(Duration::from_secs(2))?;
        std::thread::sleep(Duration::from_millis(100));
        let nanos = proxy.cpu_nanos()? - before;
        let count = load.count();
        #[allow(clippy::cast_precision_loss, reason = "both are far below 2^53")]
        let micros = nanos as f64 / 1_000.0 / (count.answered - asked).max(1) as f64;
        Ok(Sample {
            micros,
            answered: count.answered,
            failed: count.failed,
        })
    }

    fn start_peers(&self, programs: &[Program], job: &Job) -> Vec<Proxy> {
        let started = programs
            .iter()
            .filter_map(|program| match self.programs.start(*program, job) {
                Ok((proxy, _)) => Some(proxy),
                Err(error) => {
                    eprintln!("{error}");
                    None
                }
            });
        started.collect()
    }

    /// One row for each peer; every round holds our figure first.
    fn ratios(
        &mut self,
        name: &str,
        rounds: &[Vec<f64>],
        peers: &[Proxy],
        limits: impl Fn(Program) -> Option<(f64, f64)>,
        void: &Option<String>,
    ) {
        let column = |at: usize| rounds.iter().map(|round| round[at]).collect::<Vec<_>>();
        for (at, peer) in peers.iter().enumerate() {
            let ratios: Vec<f64> = rounds.iter().map(|round| round[0] / round[at + 1]).collect();
            let limits = limits(peer.program);
            self.push(Row {
                figure: name.to_owned(),
                ours: median(&column(0)),
                unit: "us",
                peer: Some((peer.program.name().to_owned(), median(&column(at + 1)))),
                ratio: Some(median(&ratios)),
                required: limits.map(|(required, _)| required),
                goal: limits.map(|(_, goal)| goal),
                void: void.clone(),
            });
        }
    }

    fn push(&mut self, row: Row) {
        eprintln!(
            "{}: {:.2} {}{}",
            row.figure,
            row.ours,
            row.unit,
            row.ratio
                .map_or_else(String::new, |ratio| format!(", ratio {ratio:.3}"))
        );
        self.rows.push(row);
    }
}

fn absolute(figure: String, ours: f64, unit: &'static str, (required, goal): (f64, f64)) -> Row {
    Row {
        required: Some(required),
        goal: Some(goal),
        ..plain(figure, ours, unit)
    }
}

fn plain(figure: String, ours: f64, unit: &'static str) -> Row {
    Row {
        figure,
        ours,
        unit,
        peer: None,
        ratio: None,
        required: None,
        goal: None,
        void: None,
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn part(some: u64, all: u64) -> f64 {
    some as f64 / all.max(1) as f64
}

#[allow(clippy::cast_precision_loss, reason = "memory far below 2^53 bytes")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
