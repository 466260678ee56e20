//! Lists of sources together with the tables that they name: read here, and compiled.
//!
//! [`Maps::read`] reads files; the rest is pure. A table is read once for each way of spelling its keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::identity::attributes::Attributes;
use crate::engine::identity::{Entry, Keying, Mapping, Normalise, Plan};
use crate::engine::ruleset::decode::{At, Map};
use crate::engine::ruleset::problem::{Place, Problem, Problems, quote};
use crate::engine::ruleset::yaml::utf8;

use super::raw::{self, AttributeName, Identity, Named};
use super::{ReadFile, path_at, read_named};

/// The tables that a configuration names.
#[derive(Debug, Default)]
pub(super) struct Maps(BTreeMap<(PathBuf, Normalise), Option<Arc<Mapping>>>);

impl Maps {
    /// Reads all of them.
    pub(super) fn read(routes: &[raw::Route], config: &Path, read_file: ReadFile<'_>, problems: &mut Problems) -> Self {
        let mut maps = Self::default();
        for (index, route) in routes.iter().enumerate() {
            let lists = [("identity", &route.identity.value), ("tenant", &route.tenant.value)];
            let attributes = route.attributes.0.iter();
            let attributes = attributes.map(|(_, attribute)| ("attributes", &attribute.0));
            for (member, list) in lists.into_iter().chain(attributes) {
                for source in list.sources() {
                    let Some(named) = path_at(source.map.clone()) else {
                        continue;
                    };
                    let known = (named.value.clone(), source.normalise);
                    maps.0.entry(known).or_insert_with(|| {
                        let path = format!("routes[{index}].{member}");
                        mapping(&named, source.normalise, config, read_file, path, problems).map(Arc::new)
                    });
                }
            }
        }
        maps
    }

    /// A list ready to be asked. One of which a table could not be read lacks it: that has been said.
    pub(super) fn plan(&self, list: &Identity) -> Plan {
        // It was compiled when it was read, and a table changes nothing about that.
        Plan::compile(&list.entries(|source| self.keying(source))).unwrap_or_default()
    }

    /// Attributes ready to be looked for, in the same way.
    pub(super) fn attributes(&self, map: &Map<AttributeName, raw::Attribute>) -> Attributes {
        let list = map.0.iter().map(|(name, attribute)| {
            let entries = attribute.0.entries(|source| self.keying(source));
            (&*name.0, entries)
        });
        let list: Vec<(&str, Vec<Entry>)> = list.collect();
        let list: Vec<(&str, &[Entry])> = list.iter().map(|(name, entries)| (*name, &**entries)).collect();
        Attributes::compile(&list).unwrap_or_default()
    }

    fn keying(&self, named: &Named) -> Keying {
        let map = named.map.as_ref().and_then(|file| {
            let known = (file.value.0.clone(), named.normalise);
            self.0.get(&known).cloned().flatten()
        });
        Keying {
            normalise: named.normalise,
            map,
        }
    }
}

fn mapping(
    named: &At<PathBuf>,
    normalise: Normalise,
    config: &Path,
    read_file: ReadFile<'_>,
    path: String,
    problems: &mut Problems,
) -> Option<Mapping> {
    let bytes = match read_named(named, config, read_file) {
        Ok(bytes) => bytes,
        Err(problem) => {
            problems.add(Problem { path, ..problem });
            return None;
        }
    };
    let file: Arc<str> = named.value.to_string_lossy().into();
    let text = utf8(&file, &bytes, problems)?;
    if text.trim().is_empty() {
        // Whoever writes a file truncates it first, and a full disk leaves it so.
        let what = format!("the table {} is empty", quote(&file));
        problems.problem(
            named.place.clone(),
            path,
            what,
            "write lines `from,to`; a line `#` if nobody is known yet",
        );
        return None;
    }
    let bad = match Mapping::parse(text, normalise) {
        Ok(mapping) => return Some(mapping),
        Err(bad) => bad,
    };
    for wrong in bad {
        let place = Place {
            file: Arc::clone(&file),
            line: wrong.line,
            column: wrong.column,
        };
        problems.problem(place, "", wrong.what.to_string(), wrong.what.remedy());
    }
    None
}
