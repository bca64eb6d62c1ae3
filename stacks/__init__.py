"""The stacks of an environment, in the order in which they build on each other.

| stack         | gives to those after it                                                                    |
|---------------|--------------------------------------------------------------------------------------------|
| Secrets       | ``keys`` (data, secrets), a construct per secret, ``name(secret)``                         |
| Network       | ``vpc``, ``groups`` (security groups of all who talk), NAT addresses                       |
| Storage       | buckets, ``release`` and ``packages`` (URIs of programs), ``grant(role, who)``             |
| Database      | ``instance``, a secret per user; the schema is up to date when it is deployed              |
| Ingestion     | ``contract``, the function and its dead-letter queue (when runner is lambda)               |
| Processing    | ``contract``, EMR's roles                                                                  |
| Catalog       | ``contract``, the Glue job, crawlers, Athena workgroup                                     |
| Orchestration | the host; writes the runtime contract                                                      |
| Observability | alarms, dashboards, budget over all of them                                                |

Each gives its section of the runtime contract as ``contract``; Orchestration puts them together.
A stack takes the stacks it builds on as typed constructor arguments; only app.py knows all of them.
"""
