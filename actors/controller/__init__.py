"""The controller: the actor that owns the catalog of topics, groups, users, quotas, deployments, mirrors and ids."""
