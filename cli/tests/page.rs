//! The page that `svod profile` writes, in a browser.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod browser;
mod digits;
mod svod;

use std::fs::File;
use std::path::PathBuf;

use browser::Browser;
use digits::DIGITS;
use serde_json::Value;
use svod::svod;
use svod_runtime::plan::{Executable, PlanBuilder, Run, Trace};
use svod_runtime::profile::{Page, Profile, write_page};
use svod_runtime::{DType, View};

/// The page of the digits, in a folder that goes with it.
fn digits_page() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("digits.html");
    let path = file.to_str().unwrap();
    let args = [
        "profile",
        DIGITS,
        "--runs=10",
        "--threads=1",
        "--html",
        path,
    ];
    let out = svod(&args).succeeds();
    assert!(out.lines().last().unwrap().contains(path), "{out}");
    (dir, file)
}

/// That page with its data changed: no digest of it stands in the page.
fn changed_page(change: impl FnOnce(&mut Value)) -> (tempfile::TempDir, PathBuf) {
    let (dir, file) = digits_page();
    let page = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = page.split_once("id=\"data\">").unwrap();
    let (data, after) = rest.split_once("</script>").unwrap();
    let mut data = serde_json::from_str(data).unwrap();
    change(&mut data);
    let page = format!("{before}id=\"data\">{data}</script>{after}");
    std::fs::write(&file, page).unwrap();
    (dir, file)
}

const TIP: &str = "(tip => tip.hidden ? '' : tip.innerText)(document.querySelector('#tip'))";
const FIRST_KERNEL: &str = "document.querySelector('.kernels tbody .name').innerText.trim()";
/// What is wider than its place, and can't be scrolled.
const CUT: &str = "[...document.querySelectorAll('body *')].filter(e => \
    e.clientWidth && e.scrollWidth > e.clientWidth + 1 && !e.closest('pre, .scroll, .unseen') \
    && getComputedStyle(e).display !== 'inline').map(e => `${e.tagName} ${e.textContent}`)";
const SEEN: &str = "document.querySelector('#timeline .seen').textContent";

#[test]
fn it_fits_any_window_in_light_and_dark_and_says_nothing_on_the_console() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let (_dir, file) = digits_page();
    for theme in ["light", "dark"] {
        for width in [320, 400, 600, 800, 900, 1200, 1440, 1600] {
            browser.open(&file, width, 900, theme);
            let at = format!("{width} pixels, {theme}");
            assert_eq!(
                browser.text("document.documentElement.dataset.theme"),
                theme
            );
            assert_eq!(
                browser.text("document.querySelector('h1').textContent"),
                "digits"
            );
            let wide = browser.js("document.documentElement.scrollWidth");
            assert_eq!(wide, width, "{at}: something is wider than the window");
            let cut = browser.js(CUT);
            assert_eq!(cut, serde_json::json!([]), "{at}: wider than its place");
            let pictures = "[...document.querySelectorAll('canvas')].map(c => { \
                const all = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; \
                const words = new Uint32Array(all.buffer); return new Set(words).size; })";
            let colours = browser.js(pictures);
            let colours = colours.as_array().unwrap();
            assert_eq!(colours.len(), 4, "{at}");
            assert!(
                colours.iter().all(|n| n.as_u64() > Some(3)),
                "{at}: {colours:?}"
            );
        }
    }
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn the_costliest_kernel_is_the_first_thing_it_says() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let (_dir, file) = digits_page();
    browser.open(&file, 900, 700, "light");
    let first = browser.text("document.querySelector('#costliest button').innerText");
    assert!(
        first.contains("conv2_pool") && first.contains('%'),
        "{first}"
    );
    let bottom = "document.querySelector('#costliest').getBoundingClientRect().bottom";
    assert!(browser.js(bottom).as_f64().unwrap() < 700.0);
    assert_eq!(
        browser.text(FIRST_KERNEL).lines().last(),
        Some("conv2_pool")
    );
}

#[test]
fn the_timeline_is_zoomed_and_panned_by_wheel_drag_and_keys() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let (_dir, file) = digits_page();
    browser.open(&file, 900, 900, "light");
    let middle = browser.middle("#timeline canvas");
    let whole = browser.text(SEEN);
    assert!(whole.starts_with("all "), "{whole}");

    // Until it is clicked, the wheel is the page's.
    browser.wheel(middle, -100.0);
    assert_eq!(browser.text(SEEN), whole);
    let middle = browser.middle("#timeline canvas");
    browser.click(middle);
    browser.wheel(middle, -300.0);
    let zoomed = browser.text(SEEN);
    assert!(zoomed.contains(" to "), "{zoomed}");
    browser.drag(middle, (middle.0 - 150.0, middle.1));
    let panned = browser.text(SEEN);
    assert_ne!(panned, zoomed);
    browser.key("ArrowLeft");
    assert_ne!(browser.text(SEEN), panned);
    browser.key("0");
    assert_eq!(browser.text(SEEN), whole);
    browser.key("+");
    assert_ne!(browser.text(SEEN), whole);
    browser.key("-");
    assert_eq!(browser.text(SEEN), whole);
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn what_is_hovered_is_told_and_what_is_selected_is_so_everywhere() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let (_dir, file) = digits_page();
    browser.open(&file, 1600, 900, "light");
    let middle = browser.middle("#timeline canvas");
    let share = "(() => { \
        const { spans, took } = JSON.parse(document.querySelector('#data').textContent).trace; \
        const [, , , , , start, end] = spans.find(([op]) => op === 1); \
        return (start + end) / 2 / took; })()";
    let share = browser.js(share).as_f64().unwrap();
    let wide = browser.js("document.querySelector('#timeline canvas').clientWidth");
    let wide = wide.as_f64().unwrap();
    let bar = (middle.0 + (share - 0.5) * (wide - 16.0), middle.1 + 12.0);
    browser.hover(bar);
    let tip = browser.text("document.querySelector('#tip').innerText");
    assert!(
        tip.contains("op 1: conv2_pool") && tip.contains("in this run"),
        "{tip}"
    );
    browser.click(bar);
    let details = browser.text("document.querySelector('#details').innerText");
    assert!(
        details.contains("Op 1") && details.contains("conv2_pool"),
        "{details}"
    );
    assert!(details.contains("which that writes"), "{details}");
    assert_eq!(
        browser
            .text("document.querySelector('.kernels tr.chosen').innerText.trim().split(/\\s+/)[1]"),
        "conv2_pool"
    );
    // By keys, from the graph.
    browser.js("document.querySelector('#graph canvas').focus()");
    browser.key("n");
    let details = browser.text("document.querySelector('#details h2').innerText");
    assert!(
        details.contains("Op 2") && details.contains("dense"),
        "{details}"
    );
    browser.key("Enter");
    assert_eq!(
        browser.js("document.activeElement.matches('#details h2')"),
        true
    );
    browser.key("Escape");
    assert_eq!(
        browser.js("document.activeElement.matches('#graph canvas')"),
        true
    );
    assert_eq!(
        browser.js("document.querySelector('.kernels tr.chosen')"),
        serde_json::Value::Null
    );
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn kernels_are_sorted_filtered_and_opened() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let (_dir, file) = digits_page();
    browser.open(&file, 900, 900, "dark");
    let head = ".kernels thead th:first-child";
    let sort = |browser: &mut Browser| {
        let at = browser.middle(&format!("{head} button"));
        browser.click(at);
        let sorted = browser.text(&format!("document.querySelector('{head}').ariaSort"));
        let first = browser.text(FIRST_KERNEL);
        (sorted, first.lines().last().unwrap().to_owned())
    };
    assert_eq!(sort(&mut browser), ("ascending".into(), "conv1".into()));
    assert_eq!(sort(&mut browser), ("descending".into(), "softmax".into()));

    let at = browser.middle("#filter");
    browser.click(at);
    for letter in ["s", "o", "f", "t"] {
        browser.key(letter);
    }
    assert_eq!(
        browser.js("document.querySelectorAll('.kernels tbody tr').length"),
        1
    );
    let at = browser.middle(".kernels tbody .name");
    browser.click(at);
    let is_open = "document.querySelector('#details').classList.contains('open')";
    assert_eq!(browser.js(is_open), true);
    let at = browser.middle("#tab-Source");
    browser.click(at);
    let source = browser.text("document.querySelector('#details pre').textContent");
    let written = std::fs::read_to_string(format!("{DIGITS}/kernels/softmax.c")).unwrap();
    assert_eq!(source.trim_end(), written.trim_end());
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn the_keyboard_alone_reaches_all_of_it() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let (_dir, file) = digits_page();
    browser.open(&file, 900, 900, "light");
    let here = "(() => { const e = document.activeElement; const s = e.closest('section')?.id ?? ''; \
                return `${s} ${e.tagName} ${e.id}`.trim(); })()";
    let mut reached = Vec::new();
    for _ in 0..80 {
        browser.key("Tab");
        reached.push(browser.text(here));
    }
    let wanted = [
        "BUTTON theme",
        "summary BUTTON",
        "timeline CANVAS",
        "graph CANVAS",
        "memory CANVAS",
        "roofline CANVAS",
        "kernels INPUT filter",
        "kernels BUTTON",
    ];
    let places = wanted
        .map(|wanted| reached.iter().position(|r| r == wanted))
        .into_iter();
    assert!(
        places.clone().all(|place| place.is_some()) && places.is_sorted(),
        "{reached:?}"
    );

    browser.js("document.querySelector('#theme').focus()");
    browser.key("Enter");
    assert_eq!(
        browser.text("document.documentElement.dataset.theme"),
        "dark"
    );
    assert_eq!(
        browser.text("getComputedStyle(document.body).backgroundColor"),
        "rgb(15, 19, 24)"
    );
    assert_eq!(browser.console(), [""; 0]);
    // Last, as the console is told of it: nothing is fetched.
    let refused = "fetch('data:,x').then(() => false, () => true)";
    assert_eq!(browser.js(refused), true);
}

const SELECTED: &str = "document.querySelector('#details h2 > span:last-child').textContent";

/// A page on which the dots of all kernels lie on each other, and the kernels' names.
fn dots_on_each_other() -> ((tempfile::TempDir, PathBuf), Vec<String>) {
    let mut names = Vec::new();
    let page = changed_page(|data| {
        for kernel in data["report"]["kernels"].as_array_mut().unwrap() {
            (kernel["flops"], kernel["bytes"]) = (3e9.into(), 1e9.into());
            names.push(kernel["name"].as_str().unwrap().to_owned());
        }
    });
    assert_eq!(names.len(), 4);
    (page, names)
}

#[test]
fn what_keys_select_is_what_the_tip_tells_of_until_it_has_moved() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let ((_dir, file), names) = dots_on_each_other();
    browser.open(&file, 1600, 900, "light");
    browser.middle("#roofline canvas");
    browser.js("document.querySelector('#roofline canvas').focus()");
    for name in &names {
        browser.key("n");
        assert_eq!(browser.text(SELECTED), *name);
        let told = browser.text(TIP);
        assert_eq!(told.lines().next(), Some(name.as_str()), "{told}");
    }
    let seen = "document.querySelector('#roofline .seen').textContent";
    let whole = browser.text(seen);
    browser.key("+");
    assert_eq!(browser.text(TIP), "");
    assert_ne!(browser.text(seen), whole);
    browser.key("0");
    assert_eq!(browser.text(seen), whole);
    browser.key("p");
    assert_ne!(browser.text(TIP), "");
    browser.js("scrollBy(0, -40)");
    browser.frame();
    assert_eq!(browser.text(TIP), "");
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn clicks_go_through_dots_that_lie_on_each_other() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let ((_dir, file), mut names) = dots_on_each_other();
    browser.open(&file, 1600, 900, "light");
    browser.middle("#roofline canvas");
    // Where the tip names all of them.
    let place = browser.js(
        "(() => { \
           const canvas = document.querySelector('#roofline canvas'), tip = document.querySelector('#tip'); \
           const { kernels } = JSON.parse(document.querySelector('#data').textContent).report; \
           const { x, y, width, height } = canvas.getBoundingClientRect(); \
           for (let down = 20; down < height - 45; down += 3) for (let right = 62; right < width - 20; right += 3) { \
             const [clientX, clientY] = [x + right, y + down]; \
             canvas.dispatchEvent(new PointerEvent('pointermove', { clientX, clientY, pointerType: 'mouse' })); \
             if (!tip.hidden && kernels.every(({ name }) => tip.innerText.includes(name))) return [clientX, clientY]; \
           } })()",
    );
    let dot = (place[0].as_f64().unwrap(), place[1].as_f64().unwrap());
    browser.hover(dot);
    let told = browser.text(TIP);
    assert!(names.iter().all(|name| told.contains(name)), "{told}");
    let mut clicked = Vec::new();
    for _ in &names {
        browser.click(dot);
        let selected = browser.text(SELECTED);
        let told = browser.text(TIP);
        assert_eq!(told.lines().next(), Some(selected.as_str()), "{told}");
        clicked.push(selected);
    }
    assert_eq!(told.lines().next(), Some(clicked[0].as_str()), "{told}");
    clicked.sort();
    names.sort();
    assert_eq!(clicked, names);
    assert_eq!(browser.console(), [""; 0]);
}

/// What a run has of parts and of time without an op, and what is more than the machine could do.
#[test]
fn what_might_be_taken_for_a_contradiction_is_explained() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let (_dir, file) = changed_page(|data| {
        let took = data["trace"]["took"].as_u64().unwrap();
        data["trace"]["took"] = (2 * took).into();
        for span in data["trace"]["spans"].as_array_mut().unwrap() {
            span[2] = 2.into();
        }
        data["report"]["pool_threads"] = 2.into();
        data["report"]["kernels"][0]["of_peak"] = 2.12.into();
    });
    browser.open(&file, 1600, 900, "light");
    let about = browser.text("document.querySelector('#about').textContent");
    assert!(
        about.contains("on 1 of 2 threads") && about.contains("schedule"),
        "{about}"
    );
    let row = "document.querySelector('.kernels tbody tr').innerText";
    assert!(browser.text(row).contains("212\u{202f}%*"));
    let hints = browser.text("document.querySelector('#kernels').innerText");
    assert!(hints.contains("* more than the peak"), "{hints}");

    let middle = browser.middle("#timeline canvas");
    browser.hover((middle.0 + 200.0, middle.1 + 12.0));
    let told = browser.text(TIP);
    assert!(told.contains("is in no op"), "{told}");
    browser.js("document.querySelector('#timeline canvas').focus()");
    browser.key("n");
    let told = browser.text(TIP);
    assert!(
        told.contains("this part, 1 of 2") && told.contains("all parts together"),
        "{told}"
    );
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn it_says_what_was_counted_or_why_nothing_was() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let counted = "[...document.querySelectorAll('#totals > div')]\
        .find(e => e.innerText.startsWith('Counted')).innerText";
    let (_dir, file) = digits_page();
    browser.open(&file, 900, 900, "light");
    let said = browser.text(counted);
    assert!(
        said.contains("instructions") || said.contains("count"),
        "{said}"
    );

    let (_dir, file) = changed_page(|data| {
        data["report"]["counts"] = Value::Null;
        data["not_counted"] = "there are no counters".into();
    });
    browser.open(&file, 900, 900, "light");
    let said = browser.text(counted);
    assert!(said.contains("nothing\nthere are no counters"), "{said}");

    let (_dir, file) = changed_page(|data| {
        data["report"]["counts"] = serde_json::json!({
            "cycles": 2e6, "instructions": 5e6, "cache_misses": 1200.0, "branch_misses": null,
        });
    });
    browser.open(&file, 900, 900, "light");
    let said = browser.text(counted).replace('\u{202f}', " ");
    assert!(
        said.contains("5.00 M instructions") && said.contains("1.20 k cache misses"),
        "{said}"
    );
    assert!(!said.contains("branch"), "{said}");
    assert_eq!(browser.console(), [""; 0]);
}

/// The run that is shown is not any, but one of about the median time; and its heading says so.
#[test]
fn the_run_that_is_shown_is_near_the_median() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let (_dir, file) = digits_page();
    browser.open(&file, 900, 900, "light");
    let data = browser.js(
        "(({ report, trace }) => [trace.took, report.run_ns.lower, report.run_ns.upper])(\
         JSON.parse(document.querySelector('#data').textContent))",
    );
    let [took, lower, upper] = [0, 1, 2].map(|i| data[i].as_f64().unwrap());
    // Of ten runs, the nearest to the median is between the quartiles.
    assert!(lower * 0.999 <= took && took <= upper * 1.001, "{data}");
    let heading = browser.text("document.querySelector('#timeline h2').textContent");
    assert!(heading.contains("the median is"), "{heading}");
}

/// A page of 5,000 ops on a hundred waves, with a name that is no name.
#[test]
fn thousands_of_ops_are_drawn_as_well() {
    const NAME: &str = "</script><script>document.title = 'broken'</script><!--";
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let mut plan = PlanBuilder::new(NAME);
    let first = plan.input("x", DType::F32, &[16]).unwrap();
    let mut before = vec![first; 50];
    for wave in 0..100 {
        let now: Vec<_> = (0..50)
            .map(|_| plan.temp(DType::F32, &[16]).unwrap())
            .collect();
        for (i, to) in now.iter().enumerate() {
            let (a, b) = (before[i], before[(i * 7 + wave) % 50]);
            let mut args = vec![to.write(), a.read()];
            if a != b {
                args.push(b.read());
            }
            let name = format!("kernel_{}", (i + wave) % 12);
            plan.host(&name, &args, |_| Ok(())).unwrap();
        }
        before = now;
    }
    let to = plan.output("y", DType::F32, &[16]).unwrap();
    plan.copy(before[0], to).unwrap();
    let executable = Executable::new(plan.build().unwrap(), vec![], []).unwrap();
    let (mut trace, mut profile) = (Trace::new(), Profile::new(&executable));
    let mut instance = executable.instance().unwrap();
    let x = View::from_slice(&[0.0_f32; 16]);
    instance.set_input("x", x).unwrap();
    for _ in 0..3 {
        let run = Run {
            trace: Some(&mut trace),
            ..Run::default()
        };
        instance.run_with(run).unwrap();
        profile.add(&trace);
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("large.html");
    let page = Page {
        plan: executable.plan(),
        report: &profile.report(None, None),
        trace: &trace,
        texts: &[],
        not_counted: None,
    };
    write_page(&page, File::create(&file).unwrap()).unwrap();

    browser.open(&file, 1600, 900, "light");
    assert_eq!(
        browser.text("document.querySelector('h1').textContent"),
        NAME
    );
    assert_eq!(
        browser.text("document.title"),
        format!("{NAME}: svod profile")
    );
    for picture in ["timeline", "graph", "memory"] {
        let at = browser.middle(&format!("#{picture} canvas"));
        browser.click(at);
        // The script's own time for a picture, and that from one picture to the next.
        let times = browser.text(
            "(async () => { \
               const canvas = document.activeElement, box = canvas.getBoundingClientRect(); \
               const own = [], apart = []; let last = performance.now(); \
               for (let i = 0; i < 60; i++) { \
                 let start; requestAnimationFrame(() => { start = performance.now(); }); \
                 canvas.dispatchEvent(new WheelEvent('wheel', { deltaY: i < 30 ? -40 : 40, \
                   clientX: box.x + 300, clientY: box.y + 100, cancelable: true })); \
                 await new Promise(done => requestAnimationFrame(done)); \
                 const now = performance.now(); own.push(now - start); apart.push(now - last); last = now; \
               } \
               const of = all => all.sort((a, b) => a - b) && \
                 `${all[30].toFixed(1)} ms median, ${all[59].toFixed(1)} ms at most`; \
               return `${of(own)}; from one to the next ${of(apart)}`; })()",
        );
        println!("{picture}: {times}");
    }
    browser.js("document.querySelector('#graph canvas').focus()");
    browser.key("n");
    let details = browser.text("document.querySelector('#details h2').innerText");
    assert!(details.starts_with("Op "), "{details}");
    assert_eq!(browser.console(), [""; 0]);
}
