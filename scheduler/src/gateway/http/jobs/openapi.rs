//! The description of `/v1/jobs` for machines.

use axum::Json;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidemill",
        description = "Jobs of a Tidemill server. Basic authentication where `[auth]` is set."
    ),
    paths(super::run::submit, super::list::list, super::show, super::cancel, super::results::result)
)]
struct Api;

pub(in super::super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Api::openapi())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described() {
        let described = serde_json::to_value(Api::openapi()).unwrap();
        let methods = |path: &str| {
            let path = &described["paths"][path];
            let mut methods: Vec<String> = path.as_object().unwrap().keys().cloned().collect();
            methods.sort();
            methods
        };
        assert_eq!(methods("/v1/jobs"), ["get", "post"]);
        assert_eq!(methods("/v1/jobs/{id}"), ["delete", "get"]);
        assert_eq!(methods("/v1/jobs/{id}/result"), ["get"]);
        let sql = &described["components"]["schemas"]["Submit"]["properties"]["sql"];
        assert_eq!(sql["type"], "string");
    }
}
