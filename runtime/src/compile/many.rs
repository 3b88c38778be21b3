//! Many sources: what was compiled before is not compiled again, what is the same is compiled
//! once, and the rest in batches.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use super::cache::{Cache, Key};
use super::keys::Keys;
use super::{Object, Options, Origin, Source, Toolchain, batch};
use crate::Error;

/// Compiles many sources, in few processes and several at a time, and tells `done` of each, by
/// its number, as it is ready, from any thread. What comes of one does not depend on the
/// others.
///
/// # Errors
///
/// For each source as [`compile`](super::compile).
pub fn compile_all(
    toolchain: &Toolchain,
    cache: Option<&Cache>,
    sources: &[Source],
    options: &Options,
    done: &(dyn Fn(usize, Origin) + Sync),
) -> Vec<Result<Object, Error>> {
    compile_until(
        toolchain,
        cache,
        sources,
        options,
        &AtomicBool::new(false),
        done,
    )
}

/// As [`compile_all`], until it is given up: what has not begun by then is an error.
pub(crate) fn compile_until(
    toolchain: &Toolchain,
    cache: Option<&Cache>,
    sources: &[Source],
    options: &Options,
    given_up: &AtomicBool,
    done: &(dyn Fn(usize, Origin) + Sync),
) -> Vec<Result<Object, Error>> {
    let _compile = tracing::info_span!("compile", sources = sources.len()).entered();
    let results: Vec<_> = sources.iter().map(|_| Mutex::new(None)).collect();
    let set = |i: usize, result| {
        *results[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    };
    // The numbers of the sources of each key, and of those that have none.
    let (mut keys, mut of_key, mut others) = (Vec::new(), Vec::<Vec<usize>>::new(), Vec::new());
    let mut known: HashMap<String, usize> = HashMap::new();
    let of = Keys::new(toolchain, options);
    for (i, source) in sources.iter().enumerate() {
        let key = cache.ok_or(String::new()).and_then(|_| of.of(source));
        match key {
            Ok(key) => match known.entry(key.digest().to_owned()) {
                Entry::Occupied(there) => of_key[*there.get()].push(i),
                Entry::Vacant(new) => {
                    new.insert(keys.len());
                    keys.push(key);
                    of_key.push(vec![i]);
                }
            },
            Err(why) => {
                if cache.is_some() {
                    tracing::debug!(kernel = source.entry, why, "not kept in the cache");
                }
                others.push(i);
            }
        }
    }
    let compile = |numbers: &[usize], publish: &(dyn Fn(usize, &[u8]) + Sync)| {
        let batch: Vec<&Source> = numbers.iter().map(|&i| &sources[i]).collect();
        batch::compile_each(toolchain, options, &batch, given_up, &|at, result| {
            if let Ok(bytes) = &result {
                publish(numbers[at], bytes);
                done(numbers[at], Origin::Compiled);
            }
            set(numbers[at], result);
        });
    };
    let origins: Vec<_> = of_key.iter().map(|_| Cell::new(Origin::Compiled)).collect();
    // What has no key goes with what is compiled first.
    if let Some(cache) = cache {
        let firsts: Vec<usize> = of_key.iter().map(|all| all[0]).collect();
        let key_of: HashMap<usize, usize> = firsts.iter().copied().zip(0..).collect();
        let found = |key: usize, bytes: Vec<u8>| {
            set(firsts[key], Ok(bytes));
            origins[key].set(Origin::Cached);
            done(firsts[key], Origin::Cached);
        };
        cache.obtain_all(&keys, &found, &mut |missing, publish| {
            let mut numbers: Vec<usize> = missing.iter().map(|&key| firsts[key]).collect();
            numbers.append(&mut others);
            compile(&numbers, &|i, bytes| {
                if let Some(&key) = key_of.get(&i) {
                    publish(key, bytes);
                }
            });
        });
    }
    if !others.is_empty() {
        compile(&others, &|_, _| ());
    }
    let take = |i: usize| {
        let mut result = results[i].lock().unwrap_or_else(PoisonError::into_inner);
        result.take().unwrap_or_else(|| {
            let kernel = &sources[i].entry;
            Err(Error::run(format!(
                "the compilation of kernel `{kernel}` was given up"
            )))
        })
    };
    let mut objects: Vec<Option<Result<Object, Error>>> = Vec::new();
    objects.resize_with(sources.len(), || None);
    for (all, origin) in of_key.iter().zip(&origins) {
        let bytes = take(all[0]);
        for &i in &all[1..] {
            let again = match &bytes {
                Ok(bytes) => {
                    done(i, origin.get());
                    Ok(bytes.clone())
                }
                Err(_) => Err(Error::run(format!(
                    "kernel `{}` is the same as another, which did not compile",
                    sources[i].entry
                ))),
            };
            objects[i] = Some(again.map(|bytes| Object::new(&sources[i].entry, bytes)));
        }
        objects[all[0]] = Some(bytes.map(|bytes| Object::new(&sources[all[0]].entry, bytes)));
    }
    let objects = objects
        .into_iter()
        .enumerate()
        .map(|(i, object)| object.unwrap_or_else(|| Ok(Object::new(&sources[i].entry, take(i)?))));
    objects.collect()
}

/// The key of each source, or why it has none and is not kept.
pub(crate) fn keys(
    toolchain: &Toolchain,
    sources: &[Source],
    options: &Options,
) -> Vec<Result<Key, String>> {
    let keys = Keys::new(toolchain, options);
    sources.iter().map(|source| keys.of(source)).collect()
}

/// Of each source, what the cache has.
pub(crate) fn cached(
    toolchain: &Toolchain,
    cache: &Cache,
    sources: &[Source],
    options: &Options,
) -> Vec<Option<Object>> {
    let keys = keys(toolchain, sources, options).into_iter().zip(sources);
    let object = |(key, source): (Result<Key, String>, &Source)| {
        let bytes = cache.get(&key.ok()?)?;
        Some(Object::new(&source.entry, bytes))
    };
    keys.map(object).collect()
}
