"""The stacks of an environment, in the order in which they build on each other.

| stack         | gives to those after it                                                                    |
|---------------|--------------------------------------------------------------------------------------------|
| Secrets       | ``keys`` (data, secrets), a construct per secret                                           |
| Network       | ``vpc``, ``groups`` (security groups of all who talk), NAT addresses                       |
| Storage       | ``lake``, ``code``, ``logs`` buckets, ``release`` (URIs of programs), ``grant(role, who)`` |
| Database      | ``instance``, ``loader_secret``, ``airflow_secret``, ``migrations`` (done)                 |
| Ingestion     | ``contract``, the function and its dead-letter queue (when runner is lambda)               |
| Processing    | ``contract``, EMR's roles                                                                  |
| Catalog       | ``contract``, the Glue job, crawlers, Athena workgroup                                     |
| Orchestration | the host; writes the runtime contract                                                      |
| Observability | alarms, dashboards, budget over all of them                                                |

A stack takes the stacks it builds on as typed constructor arguments; only app.py knows all of them.
"""
