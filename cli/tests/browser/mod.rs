//! A browser without a window, driven over two pipes by the protocol of its developer tools.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// A browser with one page, which ends with it.
pub(crate) struct Browser {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    calls: u64,
    session: Option<String>,
    /// What was told in between answers.
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

/// The browser of this machine, if it has one.
fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<_> = std::env::split_paths(&path).collect();
    let mut programs = ["chromium", "chromium-browser", "google-chrome"].into_iter();
    programs.find_map(|name| dirs.iter().map(|dir| dir.join(name)).find(|p| p.is_file()))
}

impl Browser {
    /// None, with a word, where this machine has no browser; a failure where `SVOD_TEST_NO_SKIP`
    /// is set, as it is where everything that tests need has been installed.
    ///
    /// And none where tests are run once more with guards: runs that are profiled have none.
    pub(crate) fn start() -> Option<Browser> {
        if matches!(std::env::var("SVOD_GUARD").as_deref(), Ok("end" | "start")) {
            return None;
        }
        let Some(program) = installed() else {
            let no_skip = std::env::var_os("SVOD_TEST_NO_SKIP");
            assert!(no_skip.is_none(), "not to be skipped: there is no chromium");
            eprintln!("skipped: this machine has no chromium");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        // It reads what it is told from descriptor 3, and answers to 4.
        let mut child = Command::new("sh")
            .args([
                "-c",
                "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1",
            ])
            .arg(program)
            .args(["--headless", "--remote-debugging-pipe", "--disable-gpu"])
            // Root has no sandbox. What is opened is this test's own.
            .args([
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut browser = Browser {
            to: child.stdin.take(),
            from: BufReader::new(child.stdout.take().unwrap()),
            child,
            calls: 0,
            session: None,
            events: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let id = &target["targetId"];
        let attached = browser.call(
            "Target.attachToTarget",
            json!({"targetId": id, "flatten": true}),
        );
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut call = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            call["sessionId"] = json!(session);
        }
        let text = format!("{call}\0");
        self.to
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        loop {
            let mut message = self.next();
            if message["id"] == self.calls {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    fn next(&mut self) -> Value {
        let mut message = Vec::new();
        self.from.read_until(0, &mut message).unwrap();
        assert_eq!(message.pop(), Some(0), "the browser has ended");
        serde_json::from_slice(&message).unwrap()
    }

    /// Opens a file in a window of this size, in light colours or dark ones.
    pub(crate) fn open(&mut self, file: &Path, width: u32, height: u32, theme: &str) {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}),
        );
        self.call(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": "prefers-color-scheme", "value": theme}]}),
        );
        let is_loaded = |event: &Value| event["method"] == "Page.loadEventFired";
        self.events.retain(|event| !is_loaded(event));
        let url = format!("file://{}", file.display());
        self.call("Page.navigate", json!({"url": url}));
        while !self.events.iter().any(is_loaded) {
            let event = self.next();
            self.events.push(event);
        }
        self.frame();
    }

    /// Waits until what was asked to be drawn has been.
    pub(crate) fn frame(&mut self) {
        self.js(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))",
        );
    }

    /// What an expression comes to on the page; of a promise, what that comes to.
    #[track_caller]
    pub(crate) fn js(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", params);
        let thrown = answer.get("exceptionDetails");
        assert!(thrown.is_none(), "{expression}: {thrown:?}");
        answer["result"]["value"].take()
    }

    /// As [`js`](Self::js), of text.
    #[track_caller]
    pub(crate) fn text(&mut self, expression: &str) -> String {
        let value = self.js(expression);
        let text = value.as_str();
        text.unwrap_or_else(|| panic!("{expression}: {value}"))
            .to_owned()
    }

    /// The middle of an element, once it has been scrolled to.
    #[track_caller]
    pub(crate) fn middle(&mut self, selector: &str) -> (f64, f64) {
        let place = self.js(&format!(
            "(() => {{ const e = document.querySelector({selector:?}); \
             e.scrollIntoView({{ block: 'center' }}); const b = e.getBoundingClientRect(); \
             return [b.x + b.width / 2, b.y + b.height / 2]; }})()"
        ));
        (place[0].as_f64().unwrap(), place[1].as_f64().unwrap())
    }

    fn mouse(&mut self, kind: &str, (x, y): (f64, f64), buttons: u32, wheel: f64) {
        let mut params = json!({"type": kind, "x": x, "y": y, "buttons": buttons});
        match kind {
            "mouseWheel" => (params["deltaX"], params["deltaY"]) = (json!(0), json!(wheel)),
            "mouseMoved" => {}
            _ => (params["button"], params["clickCount"]) = (json!("left"), json!(1)),
        }
        self.call("Input.dispatchMouseEvent", params);
        self.frame();
    }

    /// Moves the mouse there.
    pub(crate) fn hover(&mut self, at: (f64, f64)) {
        self.mouse("mouseMoved", at, 0, 0.0);
    }

    /// Clicks there.
    pub(crate) fn click(&mut self, at: (f64, f64)) {
        self.drag(at, at);
    }

    /// Presses the mouse in one place and lets it go in another.
    pub(crate) fn drag(&mut self, from: (f64, f64), to: (f64, f64)) {
        self.hover(from);
        self.mouse("mousePressed", from, 1, 0.0);
        if from != to {
            self.mouse("mouseMoved", to, 1, 0.0);
        }
        self.mouse("mouseReleased", to, 0, 0.0);
    }

    /// Turns the wheel, away from the user where `by` is less than 0.
    pub(crate) fn wheel(&mut self, at: (f64, f64), by: f64) {
        self.mouse("mouseWheel", at, 0, by);
    }

    /// Presses a key: a letter, or a name as `Tab`.
    pub(crate) fn key(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            _ => 0,
        };
        let text = match key {
            "Enter" => "\r",
            one if one.chars().count() == 1 => one,
            _ => "",
        };
        let down = if text.is_empty() {
            "rawKeyDown"
        } else {
            "keyDown"
        };
        let mut params = json!({"type": down, "key": key, "windowsVirtualKeyCode": code});
        if !text.is_empty() {
            params["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", params);
        let up = json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", up);
        self.frame();
    }

    /// What the console has been told, and what was thrown.
    pub(crate) fn console(&mut self) -> Vec<String> {
        // What was written before this has arrived before its answer.
        self.js("0");
        let tells = [
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Log.entryAdded",
        ];
        let is_one = |event: &&Value| tells.iter().any(|tells| event["method"] == *tells);
        let told = self.events.iter().filter(is_one);
        told.map(|event| event["params"].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Closing its pipe ends it, with all its processes.
        drop(self.to.take());
        let _ = self.child.wait();
    }
}
