"""Pages and figures: run_report, fit_report and validation_report, each one HTML page; plots/ has the figures."""
