"""The stacks of an environment, each after those that it builds on.

| stack         | gives                                                                                      |
|---------------|--------------------------------------------------------------------------------------------|
| Secrets       | ``keys`` (for data and for secrets), the secrets, ``name(secret)``                         |
| Network       | ``vpc``, ``groups`` (security groups)                                                      |
| Storage       | buckets, ``release`` and ``packages`` (published programs), ``grant(role, user)``          |
| Database      | ``instance``, one secret per user; a deployment migrates the schema                        |
| Alerts        | ``topic``, a queue per bot, ``allow_publish(role)``                                        |
| Ingestion     | the function and its schedule (when the runner is lambda), the dead-letter queue           |
| Processing    | EMR's roles and security configuration, ``allow_run(role)``                                |
| Catalog       | the Glue jobs, crawlers, rules and Athena workgroup, ``allow_run(role)``                   |
| Orchestration | Airflow's host, and the runtime contract in an SSM parameter                               |
| Observability | alarms, dashboards and the budget                                                          |

A stack takes the stacks that it builds on as typed arguments; app.py connects them. Secrets and Network come as one
``Platform``. The ``contract`` of a stack is its section of the runtime contract.
"""
