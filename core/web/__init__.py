"""What REST and the dashboard share: dependencies, problems, body limits, downloads, the server."""
