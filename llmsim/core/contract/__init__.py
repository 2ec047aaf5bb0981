"""What a policy of a user's own has to keep: hooks that are hooks (policy, names), answers that can be used (answers),
and no look at how long an output will be (oracle). Each slip is an error that names file and line."""
