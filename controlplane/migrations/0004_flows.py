import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("accounts", "0005_flow_logging"),
        ("controlplane", "0003_mail_notices"),
    ]

    operations = [
        migrations.CreateModel(
            name="FlowLog",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("stable_id", models.CharField(max_length=32)),
                ("logged", models.DateTimeField()),
                ("start", models.DateTimeField()),
                ("end", models.DateTimeField()),
                ("size", models.PositiveIntegerField()),
                ("traffic", models.BinaryField()),
                (
                    "tailnet",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="flow_logs",
                        to="accounts.tailnet",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["tailnet", "logged"], name="flow_logs_by_time")],
            },
        ),
    ]
