//! Loading in bulk: many objects in one mapping are to their kernels what an image each is.

// A helper of a test says what it expects by failing, as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::{compilers, object, with};
use object::elf;
use object::write::{Object as Made, Relocation, Symbol, SymbolSection};
use object::{
    BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};
use svod_runtime::compile::{Family, Object};
use svod_runtime::link::{Image, LoadOptions, ObjectFile, Symbols};
use svod_runtime::{DType, Error, Kernel, Runtime, Signature};

/// One object of each kind of thing that is laid out: code alone, constants, a table of
/// addresses, stubs and slots, a function of its own, an alignment. Each defines `k`.
const SOURCES: [&str; 6] = [
    "void k(float *x) { x[0] = x[0] + x[1]; }",
    "void k(float *x) { for (int i = 0; i < 8; i++) x[i] = x[i] * 1.1f + (i & 1 ? .3f : .7f); }",
    "static const float a[] = {1, 2}, b[] = {3, 4};
     static const float *const all[] = {a, b, a + 1};
     void k(float *x) { for (int i = 0; i < 8; i++) x[i] += *all[(int)x[i] % 3]; }",
    "float expf(float), sinf(float);
     static float (*const f[])(float) = {sinf, expf};
     void k(float *x) { for (int i = 0; i < 8; i++) x[i] = expf(x[i]) + f[(int)x[i] % 2](x[i]); }",
    "__attribute__((noinline)) float helper(float x) { return 3 * x + 1; }
     void k(float *x) { for (int i = 0; i < 8; i++) x[i] = helper(x[i]); }",
    "static const unsigned char far[4096] __attribute__((aligned(4096))) = {1, 2, 3};
     __attribute__((aligned(256))) void k(float *x) {
         x[0] = (unsigned long)far % 4096; x[1] = far[(int)x[2]];
     }",
];

fn signature() -> Signature {
    let signature = Signature::builder().read_write(DType::F32, 8);
    signature.build().unwrap()
}

/// The bits that a kernel makes of eight numbers.
fn bits(kernel: &Kernel) -> Vec<u32> {
    let mut x = common::from_slice(&[0.0_f32, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    kernel.launch(&mut [(&mut x).into()], &[], 1).unwrap();
    let x = x.as_slice::<f32>().unwrap();
    x.iter().map(|x| x.to_bits()).collect()
}

/// Kernels of the objects, in bulk.
fn in_bulk(runtime: &Runtime, objects: &[Object]) -> Result<Vec<Kernel>, Error> {
    let signature = signature();
    let kernels: Vec<_> = objects.iter().map(|o| (o, &signature)).collect();
    // SAFETY: the kernels here keep to the eight elements of `x`.
    unsafe { runtime.link_all(&kernels) }
}

/// Objects of the sources from one compiler, each called after its place.
fn objects(sources: &[&str]) -> Vec<Object> {
    let compiler = &compilers()[0];
    let sources: Vec<_> = sources.iter().enumerate().collect();
    common::in_parallel(&sources, |_, &(i, source)| {
        let entry = format!("kernel_{i}");
        let source = source.replace("void k(", &format!("void {entry}("));
        Object::new(entry, object(with(compiler), &source))
    })
}

fn images(objects: &[Object], options: LoadOptions) -> Result<Vec<Image>, Error> {
    let files = objects
        .iter()
        .map(|object| ObjectFile::parse(object.entry(), object.bytes()));
    let files: Vec<_> = files.collect::<Result<_, _>>()?;
    Image::load_all(&files, &Symbols::default(), options)
}

/// The lines of `/proc/self/maps`: from, to, and the rights.
fn maps() -> Vec<(usize, usize, String)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = |line: &str| {
        let (range, rest) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|x| usize::from_str_radix(x, 16).unwrap());
        (from, to, rest[..4].to_owned())
    };
    maps.lines().map(line).collect()
}

fn map_of(address: usize) -> (usize, usize, String) {
    let map = maps().into_iter().find(|m| (m.0..m.1).contains(&address));
    map.expect("it is mapped")
}

#[test]
fn kernels_in_bulk_give_the_bits_that_each_gives_alone() {
    for compiler in compilers() {
        for flags in ["-O2", "-O0 -fPIC", "-mcmodel=large"] {
            let builder = || flags.split(' ').fold(with(&compiler), |b, f| b.flag(f));
            let runtime = builder().build().unwrap();
            let once = common::in_parallel(&SOURCES, |_, source| {
                Object::new("k", object(builder(), source))
            });
            // Several of each, of one name all of them.
            let objects: Vec<_> = (0..5).flat_map(|_| once.clone()).collect();
            let kernels = in_bulk(&runtime, &objects).unwrap();
            assert_eq!(kernels.len(), objects.len());
            for (i, (kernel, object)) in kernels.iter().zip(&objects).enumerate() {
                // SAFETY: as in `in_bulk`.
                let alone = unsafe { runtime.link(object, signature()) }.unwrap();
                let how = format!("{} {flags}: {}", compiler.path.display(), i % 6);
                assert_eq!(bits(kernel), bits(&alone), "{how}");
            }
        }
    }
}

#[test]
fn nothing_is_nothing_and_one_is_one() {
    assert!(images(&[], LoadOptions::default()).unwrap().is_empty());
    let one = objects(&SOURCES[3..4]);
    let images = images(&one, LoadOptions::default()).unwrap();
    let file = ObjectFile::parse("kernel_0", one[0].bytes()).unwrap();
    let alone = Image::load(&file, &Symbols::default()).unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].size(), alone.size());
    assert!(images[0].function("kernel_0").is_some());
}

#[test]
fn one_mapping_holds_all_code_and_none_of_it_can_be_written() {
    let objects = objects(&SOURCES);
    let images = images(&objects, LoadOptions::default()).unwrap();
    let entry = |i: usize| {
        let entry = images[i].function(objects[i].entry());
        entry.unwrap().as_ptr().addr()
    };
    let code = map_of(entry(0));
    assert_eq!(code.2, "r-xp");
    for (i, image) in images.iter().enumerate() {
        assert!((code.0..code.1).contains(&entry(i)), "{i}");
        let align = if i == 5 { 256 } else { 16 };
        assert!(entry(i).is_multiple_of(align), "{i}");
        assert_eq!(image.functions().count(), if i == 4 { 2 } else { 1 });
    }
    assert!(
        (1..images.len()).all(|i| entry(i - 1) < entry(i)),
        "in order"
    );
    // The constants of all lie behind the code of all.
    assert_eq!(map_of(code.1).2, "r--p");
    // What the images say that they take is all of it.
    let bytes: usize = images.iter().map(Image::size).sum();
    assert!(bytes.is_multiple_of(4096) && bytes >= code.1 - code.0 + 4096);
    let is_both = |rights: &str| rights.contains('w') && rights.contains('x');
    assert!(maps().iter().all(|(_, _, rights)| !is_both(rights)));
}

#[test]
fn memory_goes_with_the_last_kernel_of_a_load() {
    // So many that no other test here has a mapping of this size.
    let objects = vec![objects(&SOURCES[5..]).remove(0); 97];
    let files: Vec<_> = objects
        .iter()
        .map(|o| ObjectFile::parse(o.entry(), o.bytes()).unwrap())
        .collect();
    let images = Image::load_all(&files, &Symbols::default(), LoadOptions::default()).unwrap();
    let entry = images[42].function("kernel_0").unwrap().as_ptr().addr();
    let map = map_of(entry);
    let mut kernels: Vec<Kernel> = images
        .into_iter()
        // SAFETY: as in `in_bulk`.
        .map(|i| unsafe { Kernel::new("kernel_0", Arc::new(i), signature()) }.unwrap())
        .collect();
    let all = bits(&kernels[0]);
    let last = kernels.swap_remove(50);
    drop(kernels);
    assert_eq!(bits(&last), all);
    assert_eq!(map_of(entry), map);
    drop(last);
    assert!(!maps().contains(&map));
}

#[test]
fn an_error_in_one_of_many_names_it_and_nothing_is_loaded() {
    let runtime = with(&compilers()[0]).build().unwrap();
    let good = objects(&SOURCES);
    let bad = |text: &str| object(with(&compilers()[0]), text);
    let undefined = bad("void no_such(float *); void bad(float *x) { no_such(x); }");
    let state = bad("static volatile float n; void bad(float *x) { x[0] = n++; }");
    let elsewhere = bad("void good(float *x) { x[0] = 1; }");
    let mut other = good[0].bytes().to_vec();
    other[18] = 183;
    let cut = good[1].bytes()[..good[1].bytes().len() / 2].to_vec();
    for (bytes, says) in [
        (undefined, "no_such"),
        (state, ".bss"),
        (elsewhere, "`good`"),
        (other, "aarch64"),
        (cut, "malformed"),
    ] {
        for at in [0, 3, good.len()] {
            let mut objects = good.clone();
            objects.insert(at, Object::new("bad", bytes.clone()));
            let error = in_bulk(&runtime, &objects).unwrap_err().to_string();
            assert!(error.contains("`bad`") && error.contains(says), "{error}");
        }
    }
}

#[test]
fn damaged_objects_among_good_ones_do_the_good_ones_no_harm() {
    let good = objects(&SOURCES);
    let expected: Vec<_> = {
        let runtime = with(&compilers()[0]).build().unwrap();
        in_bulk(&runtime, &good).unwrap().iter().map(bits).collect()
    };
    let mut rng = common::Rng(7);
    let mut loaded = 0;
    for _ in 0..400 {
        let mut damaged = rng.pick(&[&good[2], &good[3], &good[5]]).bytes().to_vec();
        for _ in 0..=rng.below(4) {
            let at = rng.below(damaged.len());
            damaged[at] = rng.next() as u8;
        }
        let Ok(file) = ObjectFile::parse("damaged", &damaged) else {
            continue;
        };
        let mut files: Vec<_> = good
            .iter()
            .map(|o| ObjectFile::parse(o.entry(), o.bytes()).unwrap())
            .collect();
        files.insert(3, file);
        let images = match Image::load_all(&files, &Symbols::default(), LoadOptions::default()) {
            Ok(images) => images,
            Err(error) => {
                assert!(error.to_string().contains("`damaged`"), "{error}");
                continue;
            }
        };
        loaded += 1;
        let good = good.iter().zip(&expected);
        let images = images.into_iter().enumerate().filter(|(i, _)| *i != 3);
        for ((_, image), (object, expected)) in images.zip(good) {
            // SAFETY: as in `in_bulk`.
            let kernel = unsafe { Kernel::new(object.entry(), Arc::new(image), signature()) };
            assert_eq!(&bits(&kernel.unwrap()), expected);
        }
    }
    assert!(loaded > 50, "{loaded} of them were linked");
}

#[test]
fn code_that_keeps_state_keeps_its_own_and_its_memory_apart() {
    let counting = "static volatile float n; void k(float *x) { n++; x[0] = n; }";
    let objects = objects(&[SOURCES[0], counting, SOURCES[1], counting, SOURCES[2]]);
    let refused = images(&objects, LoadOptions::default()).unwrap_err();
    assert!(
        matches!(&refused, Error::WritableSection { kernel, .. } if kernel == "kernel_1"),
        "{refused}"
    );
    let options = LoadOptions {
        admit_state: true,
        ..LoadOptions::default()
    };
    let images = images(&objects, options).unwrap();
    let map = |i: usize| {
        let entry = images[i].function(objects[i].entry()).unwrap();
        map_of(entry.as_ptr().addr())
    };
    assert_eq!(map(0), map(2));
    assert_eq!(map(0), map(4));
    assert!(map(0) != map(1) && map(0) != map(3) && map(1) != map(3));

    let runtime = with(&compilers()[0]).admit_state(true).build().unwrap();
    let kernels = in_bulk(&runtime, &objects).unwrap();
    let counted = |i: usize| f32::from_bits(bits(&kernels[i])[0]);
    assert_eq!([counted(1), counted(1), counted(3)], [1.0, 2.0, 1.0]);
    assert_eq!(counted(0), 1.0, "the others are called as ever");
    // Its own lock, so that calls from several threads are all counted.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| assert!(counted(3) > 1.0)));
        }
    });
    assert_eq!(counted(3), 402.0);
}

#[test]
fn code_with_absolute_addresses_is_mapped_low_and_the_others_share() {
    for family in [Family::Clang, Family::Gcc] {
        let Some(compiler) = common::compiler_of(family) else {
            continue;
        };
        let mut objects = objects(&SOURCES[..3]);
        let builder = with(&compiler).flag("-fno-pic").flag("-mcmodel=small");
        let low = SOURCES[2].replace("void k(", "void low(");
        objects.insert(1, Object::new("low", object(builder, &low)));
        let images = images(&objects, LoadOptions::default()).unwrap();
        let entry = |i: usize| {
            let entry = images[i].function(objects[i].entry());
            entry.unwrap().as_ptr().addr()
        };
        assert!(entry(1) < 1 << 31);
        assert_eq!(map_of(entry(0)), map_of(entry(3)));
        let runtime = with(&compiler).build().unwrap();
        let kernels = in_bulk(&runtime, &objects).unwrap();
        assert_eq!(bits(&kernels[1]), bits(&kernels[3]));
    }
}

#[test]
fn code_that_reaches_its_constants_from_nearby_alone_has_them_nearby() {
    // A distance of 16 bits to the constants, which lie on the next page of an image of
    // its own.
    let mut near = Made::new(
        BinaryFormat::Elf,
        object::Architecture::X86_64,
        Endianness::Little,
    );
    let text = near.add_section(vec![], b".text".to_vec(), SectionKind::Text);
    near.append_section_data(text, &[0xc3; 64], 16);
    let constants = near.add_section(vec![], b".rodata".to_vec(), SectionKind::ReadOnlyData);
    near.append_section_data(constants, &[1; 8], 8);
    let mut symbol = |name: &[u8], section| {
        near.add_symbol(Symbol {
            name: name.to_vec(),
            value: 0,
            size: 8,
            kind: SymbolKind::Text,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        })
    };
    symbol(b"near", text);
    let symbol = symbol(b"constants", constants);
    let flags = RelocationFlags::Elf {
        r_type: elf::R_X86_64_PC16,
    };
    let relocation = Relocation {
        offset: 8,
        symbol,
        addend: 0,
        flags,
    };
    near.add_relocation(text, relocation).unwrap();
    let near = Object::new("near", near.write().unwrap());

    // Its code comes first, then that of the others, then all constants.
    let large = format!("void k(float *x) {{ {} }}", "x[1] *= x[2];".repeat(1000));
    let mut objects = vec![objects(&[&large]).remove(0); 40];
    objects.insert(0, near);
    images(&objects, LoadOptions::default()).unwrap();
}
