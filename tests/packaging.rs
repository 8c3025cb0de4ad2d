//! The files that ship the program refer only to what exists and to commands it understands.

#[cfg(test)]
mod packaging {
    use std::collections::HashSet;
    use std::path::Path;
    use std::process::Command;

    use yaml_rust2::{Yaml, YamlLoader};

    fn read(file: &str) -> String {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
    }

    #[track_caller]
    fn assert_exists(file: &str) {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists(), "{file} does not exist");
    }

    /// clap reads from left to right, so what stands before `--help` must be valid for help to be shown.
    #[track_caller]
    fn assert_is_command(arguments: &[String]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
        let output = command.args(arguments).arg("--help").output().unwrap();
        let usage = format!("Usage: vestibule {}", arguments[0]);
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && shown.contains(&usage), "{arguments:?}: {output:?}");
    }

    /// The file of the repository that stands at this path of the image.
    fn config_in_image(path: &str) -> String {
        format!("config/{}", path.strip_prefix("/etc/vestibule/").unwrap())
    }

    fn compose() -> Yaml {
        YamlLoader::load_from_str(&read("docker-compose.yml")).unwrap().remove(0)
    }

    fn texts(list: &Yaml) -> Vec<String> {
        list.as_vec().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    }

    /// A service's key, its own or the one merged in by `<<`.
    fn key<'a>(service: &'a Yaml, name: &str) -> &'a Yaml {
        if service[name].is_badvalue() { &service["<<"][name] } else { &service[name] }
    }

    fn services(compose: &Yaml) -> Vec<(String, &Yaml)> {
        let services = compose["services"].as_hash().unwrap();
        services.iter().map(|(name, service)| (name.as_str().unwrap().to_owned(), service)).collect()
    }

    fn address(service: &Yaml) -> &str {
        service["networks"]["inside"]["ipv4_address"].as_str().unwrap()
    }

    #[test]
    fn the_image_is_built_from_files_that_exist_and_are_not_ignored() {
        let (dockerfile, ignored) = (read("Dockerfile"), read(".dockerignore"));
        let copied: Vec<&str> = dockerfile
            .lines()
            .filter_map(|line| line.strip_prefix("COPY "))
            .filter(|arguments| !arguments.starts_with("--from="))
            .flat_map(|arguments| {
                let words: Vec<&str> = arguments.split(' ').collect();
                words[..words.len() - 1].to_vec()
            })
            .collect();
        assert_eq!(copied, ["Cargo.toml", "Cargo.lock", "config", "src", "benches", "LICENSE", "config"]);
        for file in copied {
            assert_exists(file);
            assert!(ignored.lines().any(|line| line == format!("!{file}")), ".dockerignore hides {file}");
        }
    }

    #[test]
    fn the_image_runs_an_existing_command_as_an_ordinary_user() {
        let dockerfile = read("Dockerfile");
        let value = |name: &str| {
            let last = dockerfile.lines().filter_map(|line| line.strip_prefix(name)).next_back();
            last.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
        };
        assert_eq!(value("USER "), "65532:65532");
        assert_eq!(value("ENTRYPOINT "), "[\"vestibule\"]");
        let command: Vec<String> = serde_json::from_str(&value("CMD ")).unwrap();
        assert_is_command(&command);
        assert_exists(&config_in_image(command.last().unwrap()));
    }

    #[test]
    fn compose_starts_commands_that_exist() {
        let compose = compose();
        let mut inspected = 0;
        for (name, service) in services(&compose) {
            if key(service, "image").as_str() == Some("vestibule:local") {
                assert_is_command(&texts(key(service, "command")));
                inspected += 1;
            } else {
                assert_eq!(name, "redis");
            }
        }
        assert_eq!(inspected, 5);
    }

    #[test]
    fn compose_tells_the_instances_apart_and_keeps_no_session_in_them() {
        let compose = compose();
        for (name, service) in services(&compose) {
            if name.starts_with("app-") {
                assert_eq!(texts(&service["command"])[3..], ["--instance".to_owned(), name]);
            }
        }
        let store = compose["x-stub"]["environment"]["SESSION_STORE"].as_str().unwrap();
        let store = store.strip_prefix("${SESSION_STORE:-").unwrap().strip_suffix('}').unwrap();
        assert_eq!(store, "none");
        assert_is_command(&["stub".to_owned(), format!("--session-store={store}")]);
    }

    #[test]
    fn compose_mounts_and_depends_on_what_exists() {
        let compose = compose();
        let names: HashSet<String> = services(&compose).into_iter().map(|(name, _)| name).collect();
        for (name, service) in services(&compose) {
            if let Some(needed) = key(service, "depends_on").as_vec() {
                let needed = needed.iter().map(|name| name.as_str().unwrap());
                assert!(needed.clone().all(|needed| names.contains(needed)), "{name}: {needed:?}");
            }
        }
        let front = &compose["services"]["vestibule"];
        let volumes = texts(&front["volumes"]);
        let (source, target) = volumes[0].trim_end_matches(":ro").split_once(':').unwrap();
        assert_exists(source);
        assert_eq!(texts(&front["command"]).last().map(String::as_str), Some(target));
        assert_eq!(source.trim_start_matches("./"), config_in_image(target));
    }

    #[test]
    fn compose_and_its_configuration_agree_on_every_address() {
        let (compose, config) = (compose(), read("config/compose.toml"));
        let instances: Vec<String> = services(&compose)
            .into_iter()
            .filter(|(name, _)| name.starts_with("app-"))
            .map(|(_, service)| format!("address = \"{}:5001\"", address(service)))
            .collect();
        assert_eq!(instances.len(), 4);
        let redis = format!("redis://{}:6379/0", address(&compose["services"]["redis"]));
        for line in instances.iter().chain([&format!("url = \"{redis}\"")]) {
            assert!(config.lines().any(|own| own == line), "config/compose.toml has no line {line}");
        }
        assert_eq!(compose["x-stub"]["environment"]["REDIS_URL"].as_str(), Some(redis.as_str()));
        let addresses: HashSet<&str> =
            services(&compose).iter().map(|(_, service)| address(service)).collect();
        assert_eq!(addresses.len(), 6, "an address stands twice");
        assert!(addresses.iter().all(|address| address.starts_with("172.28.0.")));
    }

    #[test]
    fn the_readme_names_commands_and_files_that_exist() {
        let readme = read("README.md");
        let commands: Vec<&str> = readme
            .lines()
            .filter_map(|line| line.strip_prefix("| `vestibule "))
            .filter_map(|row| row.split('`').next())
            .collect();
        assert!(commands.len() >= 4, "{commands:?}");
        for command in commands {
            assert_is_command(&command.split(' ').map(str::to_owned).collect::<Vec<_>>());
        }
        for file in ["tests/run.sh", "config/shared.toml", "config/vestibule.toml", "docker-compose.yml"] {
            assert!(readme.contains(file), "{file}");
            assert_exists(file);
        }
    }

    #[test]
    fn the_unit_starts_commands_that_exist() {
        let unit = read("deploy/vestibule.service");
        let mut inspected = 0;
        let ours = |line| str::split_once(line, "=/usr/local/bin/vestibule ").map(|(_, command)| command);
        for command in unit.lines().filter(|line| line.starts_with("Exec")).filter_map(ours) {
            let arguments: Vec<String> = command.split(' ').map(str::to_owned).collect();
            assert_is_command(&arguments);
            assert_exists(&config_in_image(arguments.last().unwrap()));
            inspected += 1;
        }
        assert_eq!(inspected, 3);
    }
}
